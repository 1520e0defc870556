"""Power: battery and mains of this machine.

On Linux not by psutil: it fails where there is no such folder, finds one battery of
several, and takes a wireless mouse's battery for the machine's own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from edgeserve.reports.hardware import Power
from node.hardware.readings import entries, number, text

SUPPLIES = "sys/class/power_supply"

BATTERIES = frozenset(("battery", "ups"))
SPARED = frozenset(("charging", "full", "not charging"))
"""Statuses of a battery that is not in use."""

LEVELS = {"critical": 5, "low": 15, "normal": 50, "high": 80, "full": 100}
"""`capacity_level`, of batteries that know no percentage."""


@dataclass(frozen=True, kw_only=True)
class Battery:
    """One battery of the machine. `share` is 0 to 1, `size` in the kernel's unit."""

    status: str
    share: float | None = None
    size: int = 0


def power(root: Path = Path("/")) -> Power:
    """Return how the machine is powered; without a battery, by mains."""
    if not sys.platform.startswith("linux"):
        return _elsewhere()
    # Not those of a mouse, a headset or a pen.
    supplies = entries(root / SUPPLIES)
    own = [each for each in supplies if text(each / "scope").lower() != "device"]
    kinds = {each: text(each / "type").lower() for each in own}
    batteries = [
        _battery(each)
        for each in own
        if kinds[each] in BATTERIES and text(each / "present") != "0"
    ]
    lines = [
        number(each / "online")
        for each in own
        if kinds[each] not in BATTERIES and text(each / "online")
    ]
    return judged(batteries, [bool(each) for each in lines if each is not None])


def judged(batteries: Iterable[Battery], lines: Iterable[bool]) -> Power:
    """Combine batteries, and whether each external line has power. Pure.

    A machine that does not tell is treated as plugged in.
    """
    batteries, lines = tuple(batteries), tuple(lines)
    if not batteries:
        return Power(on_mains=True)
    statuses = {each.status for each in batteries}
    if any(lines):
        on_mains = True
    elif "discharging" in statuses:
        on_mains = False
    else:
        on_mains = not lines or bool(statuses & SPARED)
    return Power(on_mains=on_mains, percent=_percent(batteries))


def _percent(batteries: Sequence[Battery]) -> float | None:
    """Return the charge of all together, weighted by size. Pure."""
    known = [(each.share, each.size) for each in batteries if each.share is not None]
    if not known:
        return None
    if not all(size for _, size in known):
        known = [(share, 1) for share, _ in known]
    held = sum(share * size for share, size in known) / sum(size for _, size in known)
    return float(round(100 * min(1.0, held)))


def _battery(supply: Path) -> Battery:
    status = text(supply / "status").lower()
    for unit in ("energy", "charge"):
        now, full = number(supply / f"{unit}_now"), number(supply / f"{unit}_full")
        if now is not None and now >= 0 and full is not None and full > 0:
            return Battery(status=status, share=now / full, size=full)
    percent = number(supply / "capacity")
    if percent is None:
        percent = LEVELS.get(text(supply / "capacity_level").lower())
    if percent is None or not 0 <= percent <= 100:
        return Battery(status=status)
    return Battery(status=status, share=percent / 100)


def _elsewhere() -> Power:
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if battery is None:
        return Power(on_mains=True)
    # None: the battery does not tell; then the machine counts as plugged in.
    on_mains = battery.power_plugged is not False
    return Power(on_mains=on_mains, percent=round(battery.percent, 0))
