"""Network cards: how a magic packet reaches this machine while it sleeps."""

from __future__ import annotations

import ipaddress
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgeserve.network import Interface, by_name, is_virtual
from edgeserve.reports.sleep import NetworkCard
from node.hardware.gpus import program_output
from node.hardware.readings import text

NET = "sys/class/net"
SECONDS = 5.0

NO_CARD = "00:00:00:00:00:00"


def cards(
    root: Path = Path("/"), found: Mapping[str, tuple[Interface, ...]] | None = None
) -> tuple[NetworkCard, ...]:
    """Return the cards that have an address, those first that wake the machine."""
    there = _cards(root, by_name() if found is None else found)
    return tuple(sorted(there, key=lambda each: (each.wakes is not True, each.mac)))


def _cards(
    root: Path, found: Mapping[str, tuple[Interface, ...]]
) -> Iterator[NetworkCard]:
    for name, addresses in found.items():
        mac = text(root / NET / name / "address").lower()
        if (
            is_virtual(name)
            or mac == NO_CARD
            or not re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", mac)
        ):
            continue
        for each in addresses:
            if isinstance(each, ipaddress.IPv4Interface) and not each.ip.is_loopback:
                yield NetworkCard(
                    mac=mac,
                    broadcast=str(each.network.broadcast_address),
                    wakes=_wakes(root, name),
                )
                break


def _wakes(root: Path, name: str) -> bool | None:
    """Whether a magic packet wakes it; root alone may ask the driver."""
    if shutil.which("ethtool"):
        said = parse_ethtool(program_output(("ethtool", name), SECONDS))
        if said is not None:
            return said
    wakeup = text(root / NET / name / "device/power/wakeup")
    return {"enabled": True, "disabled": False}.get(wakeup)


def parse_ethtool(shown: str) -> bool | None:
    """Read `Wake-on: g` of ethtool; None where it does not tell."""
    found = re.search(r"^\s*Wake-on:\s*([a-z]+)", shown, re.MULTILINE)
    return None if found is None else "g" in found[1]
