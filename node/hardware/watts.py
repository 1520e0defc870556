"""Watts: what this machine takes now, by the best of its sensors.

What measures the whole machine comes first: the owner's command, a battery that is
being discharged, a sensor of the board. Otherwise the parts that can be read are added:
processor and memory by RAPL, GPUs by their drivers. A part is less than the whole, but
what an engine adds to it is nearly all that it adds.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgeserve.runtime.log import warn_once
from node.hardware.gpus import SECONDS, program_output
from node.hardware.power import SUPPLIES
from node.hardware.readings import entries, number, text

log = logging.getLogger(__name__)

HWMON = "sys/class/hwmon"
RAPL = "sys/class/powercap"
MICRO = 1e6

COMMAND_EVERY = 30.0
"""Seconds between two runs of the owner's command; in between its last answer holds."""

GPUS_EVERY = 15.0
"""Seconds between two runs of `nvidia-smi`, which wakes the driver."""

MOST = 100_000.0
"""More watts than any machine takes: the sensor is broken."""

NVIDIA = (
    "nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits",
)  # fmt: skip

Program = Callable[[tuple[str, ...], float], str]


@dataclass(frozen=True)
class Reading:
    """Watts, and what measured them; None where nothing does."""

    watts: float | None = None
    source: str = ""


@dataclass
class Meters:
    """Measures at each call. Counters of energy need two calls for a first reading."""

    command: str = ""
    root: Path = Path("/")
    clock: Callable[[], float] = time.monotonic
    run: Program = program_output
    _counted: dict[Path, tuple[float, float]] = field(
        default_factory=dict[Path, tuple[float, float]]
    )
    _kept: dict[str, tuple[float, float | None]] = field(
        default_factory=dict[str, tuple[float, float | None]]
    )

    def __call__(self, *, gpus: bool = False) -> Reading:
        """Measure; `gpus`: the machine has some of NVIDIA's."""
        if self.command:
            return Reading(self._owners(), "power_command")
        for source, read in (("battery", self._battery), ("sensor", self._board)):
            if (watts := read()) is not None:
                return Reading(round(watts, 1), source)
        rapl, cards = self._rapl(), self._gpus(gpus)
        parts = [each for each in (rapl, cards) if each is not None]
        if not parts:
            return Reading()
        names = [("RAPL", rapl), ("GPU", cards)]
        source = " and ".join(name for name, watts in names if watts is not None)
        return Reading(round(sum(parts), 1), source)

    def _owners(self) -> float | None:
        """Ask the owner's command, rarely; a smart plug need not answer at once."""
        return self._rarely("command", COMMAND_EVERY, self._asked)

    def _asked(self) -> float | None:
        output = self.run(("sh", "-c", self.command), SECONDS)
        watts = first_number(output)
        if watts is None:
            said = " ".join(output.split())[:60]
            warn_once(log, f"power_command printed no number of watts: {said!r}")
        return watts

    def _rarely(
        self, what: str, every: float, read: Callable[[], float | None]
    ) -> float | None:
        now = self.clock()
        at, watts = self._kept.get(what, (-every, None))
        if what not in self._kept or now - at >= every:
            watts = read()
            self._kept[what] = now, watts
        return watts

    def _battery(self) -> float | None:
        """Return what flows out of the machine's batteries, while they are in use."""
        flows = [
            flow
            for supply in entries(self.root / SUPPLIES)
            if text(supply / "type").lower() == "battery"
            and text(supply / "scope").lower() != "device"
            and text(supply / "status").lower() == "discharging"
            and (flow := _flow(supply)) is not None
        ]
        return sum(flows) if flows else None

    def _board(self) -> float | None:
        """Return what a sensor of the whole machine tells: a server's, a board's."""
        found = [
            max(_sensors(monitor), default=0.0)
            for monitor in entries(self.root / HWMON)
            if text(monitor / "name") == "power_meter"
            or text(monitor / "name").startswith("ina")
        ]
        return _plausible(max(found, default=0.0))

    def _rapl(self) -> float | None:
        """Return the watts of processor and memory since the last call."""
        zones = {each: text(each / "name") for each in self._zones()}
        whole = [each for each, name in zones.items() if name == "psys"]
        parts = [
            each
            for each, name in zones.items()
            if name.startswith("package") or name == "dram"
        ]
        found = [self._rate(each) for each in whole or parts]
        known = [each for each in found if each is not None]
        return _plausible(sum(known))

    def _zones(self) -> Iterator[Path]:
        for each in entries(self.root / RAPL):
            if re.fullmatch(r"intel-rapl(:\d+)+", each.name):
                yield each

    def _rate(self, zone: Path) -> float | None:
        """Return the watts of one counter of energy, which begins anew at times."""
        joules = _energy(zone)
        if joules is None:
            return None
        now = self.clock()
        before = self._counted.get(zone)
        self._counted[zone] = now, joules
        if before is None or now <= before[0]:
            return None
        used = joules - before[1]
        if used < 0:
            used += (number(zone / "max_energy_range_uj") or 0) / MICRO
        return used / (now - before[0]) if used >= 0 else None

    def _gpus(self, nvidia: bool) -> float | None:
        cards = [
            max(_sensors(monitor), default=0.0)
            for monitor in entries(self.root / HWMON)
            if text(monitor / "name") == "amdgpu"
        ]
        if nvidia:
            cards.append(self._rarely("gpus", GPUS_EVERY, self._nvidia) or 0.0)
        return _plausible(sum(cards))

    def _nvidia(self) -> float | None:
        rows = self.run(NVIDIA, SECONDS).splitlines()
        return sum(first_number(row) or 0.0 for row in rows)


def first_number(output: str) -> float | None:
    """Return the first number of a text, as watts; None where it makes no sense."""
    found = re.search(r"-?\d+(?:\.\d+)?", output)
    return _plausible(float(found[0])) if found else None


def _plausible(watts: float) -> float | None:
    return watts if 0 < watts < MOST else None


def _flow(supply: Path) -> float | None:
    """Return a battery's watts; some drivers tell current and voltage instead."""
    power = number(supply / "power_now")
    if power is not None:
        return _plausible(abs(power) / MICRO)
    current, voltage = number(supply / "current_now"), number(supply / "voltage_now")
    if current is None or voltage is None:
        return None
    return _plausible(abs(current) * voltage / MICRO**2)


def _sensors(monitor: Path) -> Iterator[float]:
    for each in entries(monitor):
        if re.fullmatch(r"power\d+_(average|input)", each.name):
            yield (number(each) or 0) / MICRO


def _energy(zone: Path) -> float | None:
    """Return a counter in joules. The kernel lets root alone read it."""
    counter = zone / "energy_uj"
    found = text(counter, for_root=True)
    if found.isdecimal():
        return int(found) / MICRO
    if counter.exists() and not os.access(counter, os.R_OK):
        warn_once(
            log,
            "the energy counters of the processor (RAPL) can be read by root only, so"
            " that watts come from a table; `power_command` can tell them instead",
        )
    return None
