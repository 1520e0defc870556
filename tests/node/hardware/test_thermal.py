"""A Raspberry Pi that throttles, by a pretended /sys."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeserve.reports.hardware import Thermal
from node.hardware.thermal import parse_throttled, slowed, thermal, throttle_flags
from tests.node.building import a_node, some_hardware

BOARDS = ("soc:firmware", "soc@107c000000:firmware")
"""Where a Pi 4 and a Pi 5 have it."""


def firmware(root: Path, flags: str, board: str = BOARDS[0]) -> None:
    """Have a driver that links to the device, as /sys has it."""
    device = root / "sys/devices/platform" / board
    device.mkdir(parents=True)
    (device / "get_throttled").write_text(flags)
    driver = root / "sys/bus/platform/drivers/raspberrypi-firmware"
    driver.mkdir(parents=True)
    (driver / "bind").touch()
    (driver / board).symlink_to(device)


@pytest.mark.parametrize("board", BOARDS)
def test_the_firmwares_flags_are_found_whatever_the_boards_address(
    board: str, tmp_path: Path
) -> None:
    firmware(tmp_path, "50005\n", board)

    assert throttle_flags(tmp_path) == 0x50005


def test_a_kernel_that_only_watches_the_voltage_tells_of_it(tmp_path: Path) -> None:
    monitor = tmp_path / "sys/class/hwmon/hwmon1"
    monitor.mkdir(parents=True)
    (monitor / "name").write_text("rpi_volt\n")
    alarm = monitor / "in0_lcrit_alarm"
    alarm.write_text("0\n")
    before = throttle_flags(tmp_path)
    alarm.write_text("1\n")

    assert (before, throttle_flags(tmp_path)) == (0, 1)


@pytest.mark.parametrize(
    ("said", "bits"),
    [("50005\n", 0x50005), ("0x0", 0), ("VCHI initialization failed", 0), ("", 0)],
)
def test_the_firmwares_number_is_read(said: str, bits: int) -> None:
    assert parse_throttled(said) == bits


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (0x1, Thermal(under_voltage=True)),
        (0x2, Thermal(throttled=True)),
        (0x4, Thermal(throttled=True)),
        (0x8, Thermal(throttled=True)),
        (0x5, Thermal(under_voltage=True, throttled=True)),
        (0xF0000, Thermal()),  # it was so, and is no longer
    ],
)
def test_only_what_is_so_now_counts(
    flags: int, found: Thermal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.hardware.thermal.throttle_flags", lambda: flags)
    monkeypatch.setattr("node.hardware.thermal._hottest", lambda: None)

    assert thermal(Thermal()) == found


@pytest.mark.parametrize(
    ("found", "what", "remedy"),
    [
        (Thermal(throttled=True, celsius=84.6), "is hot (85 °C)", "cooler"),
        (Thermal(throttled=True, under_voltage=True), "voltage", "power supply"),
    ],
)
def test_a_node_reports_why_it_is_slow_with_a_remedy(
    found: Thermal, what: str, remedy: str
) -> None:
    state = a_node()
    state.hardware.latest = some_hardware(thermal=found)

    (said,) = state.report().slowed

    assert what in said
    assert remedy in said.partition("; ")[2]


def test_a_cool_machine_reports_nothing() -> None:
    assert list(slowed(Thermal(celsius=60.0))) == []
