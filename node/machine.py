"""What tells this machine from every other, and whether two descriptions are of one."""

from __future__ import annotations

from pathlib import Path

import msgspec

from node.readings import entries

SERIALS = (
    "sys/firmware/devicetree/base/serial-number",
    "sys/class/dmi/id/product_uuid",
    "sys/class/dmi/id/board_serial",
)
"""Firmware's own numbers; the DMI ones are for root's eyes only."""

PLACEHOLDERS = frozenset(
    ("", "none", "default string", "to be filled by o.e.m.", "not specified",
     "0123456789", "03000200-0400-0500-0006-000700080009")
)  # fmt: skip
"""What careless makers put where a serial number belongs."""

LOCALLY_ADMINISTERED = 0x02


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Serial numbers, addresses of built-in network adapters, and the machine id."""

    serials: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    machine_id: str = ""


def same(then: Machine, now: Machine) -> bool:
    """Whether two descriptions are of one machine; the strongest shared evidence wins.

    Root reads serial numbers that others cannot, so one side may know more.
    """
    if then.serials and now.serials:
        return bool(set(then.serials) & set(now.serials))
    if then.adapters and now.adapters:
        return bool(set(then.adapters) & set(now.adapters))
    return then.machine_id == now.machine_id


def merged(then: Machine, now: Machine) -> Machine:
    """Describe one machine by what is known now, and what was known before."""
    return Machine(
        serials=now.serials or then.serials,
        adapters=now.adapters or then.adapters,
        machine_id=now.machine_id or then.machine_id,
    )


def this_machine(root: Path = Path("/")) -> Machine:
    """Describe the machine whose file system begins at `root`."""
    serials = (_text(root / place) for place in SERIALS)
    nets = entries(root / "sys/class/net")
    return Machine(
        serials=tuple(each for each in serials if _is_serial(each)),
        adapters=tuple(sorted(filter(None, map(_built_in, nets)))),
        machine_id=_text(root / "etc/machine-id"),
    )


def _is_serial(text: str) -> bool:
    return text.lower() not in PLACEHOLDERS and bool(text.strip("0-fF"))


def _built_in(net: Path) -> str | None:
    """Return an adapter's own address, unless it is virtual, random or on USB."""
    try:
        device = (net / "device").resolve(strict=True)
    except (OSError, RuntimeError):  # none, or gone since it was listed
        return None
    if "/usb" in str(device):
        return None
    address = _text(net / "address")
    try:
        own = not int(address[:2], 16) & LOCALLY_ADMINISTERED
    except ValueError:
        return None
    return address if own and address.strip("0:") else None


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace").strip("\0 \n")
    except OSError:
        return ""
