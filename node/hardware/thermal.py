"""Heat and voltage: temperature, throttling, and what to do about them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psutil

from edgeserve.reports.hardware import Thermal
from node.hardware.readings import entries, measured, number, text

FIRMWARE = "sys/bus/platform/drivers/raspberrypi-firmware"
"""The driver's folder links to the device, whose own path differs by board."""

HWMON = "sys/class/hwmon"
VOLTAGE = "rpi_volt"
"""The monitor of kernels that tell of the voltage alone, such as Debian's."""

UNDER_VOLTAGE, CAPPED, THROTTLED, SOFT_LIMIT = 0b0001, 0b0010, 0b0100, 0b1000
"""What the firmware tells of now; 16 bits higher is what was so since the start."""


def thermal(last: Thermal) -> Thermal:
    """Measure; a reading that fails keeps its earlier value, or tells of nothing."""
    flags = measured("throttling", throttle_flags, 0)
    return Thermal(
        celsius=measured("temperature", _hottest, last.celsius),
        throttled=bool(flags & (CAPPED | THROTTLED | SOFT_LIMIT)),
        under_voltage=bool(flags & UNDER_VOLTAGE),
    )


def slowed(found: Thermal) -> Iterator[str]:
    """Yield why the processor runs slower than it could, with the remedy. Pure."""
    if found.under_voltage:
        yield (
            "the voltage is too low, and the processor slows down; use a stronger power"
            " supply (3 A for a Raspberry Pi 4, 5 A for a Pi 5) and a short cable"
        )
    elif found.throttled:
        at = "" if found.celsius is None else f" ({found.celsius:.0f} °C)"
        yield (
            f"the processor is hot{at} and runs slower; give it air or a larger cooler,"
            " or fewer threads with `edgeserve node start --threads`"
        )


def _hottest() -> float | None:
    if not hasattr(psutil, "sensors_temperatures"):
        return None
    readings = [
        each.current
        for sensor in psutil.sensors_temperatures().values()
        for each in sensor
        if 0 < each.current < 150  # a broken sensor shows 0, or 65261
    ]
    return round(max(readings), 1) if readings else None


def throttle_flags(root: Path = Path("/")) -> int:
    """Return the Raspberry Pi firmware's current flags; 0 on other machines."""
    for device in entries(root / FIRMWARE):
        if flags := parse_throttled(text(device / "get_throttled")):
            return flags
    for monitor in entries(root / HWMON):
        if text(monitor / "name") == VOLTAGE and number(monitor / "in0_lcrit_alarm"):
            return UNDER_VOLTAGE
    return 0


def parse_throttled(flags: str) -> int:
    """Read the hexadecimal number of the driver's file, `50005` or `0x50005`."""
    found = re.fullmatch(r"(?:0x)?([0-9a-fA-F]+)", flags.strip())
    return int(found[1], 16) if found else 0
