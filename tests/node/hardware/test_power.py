from __future__ import annotations

from pathlib import Path

import pytest

from edgeserve.reports.hardware import Power
from node.hardware.power import power

MAINS = Power(on_mains=True)


def supply(root: Path, name: str, **files: str) -> Path:
    folder = root / "sys/class/power_supply" / name
    folder.mkdir(parents=True)
    for each, said in files.items():
        (folder / each).write_text(said)
    return folder


@pytest.mark.parametrize("there", ["nothing", "no supplies", "a file"])
def test_without_power_supplies_the_machine_is_on_mains(
    there: str, tmp_path: Path
) -> None:
    folder = tmp_path / "sys/class/power_supply"
    if there == "no supplies":
        folder.mkdir(parents=True)
    if there == "a file":
        folder.parent.mkdir(parents=True)
        folder.touch()

    assert power(tmp_path) == MAINS


def test_a_wireless_mouse_is_no_battery_of_the_machine(tmp_path: Path) -> None:
    mouse = {"type": "Battery", "scope": "Device\n", "status": "Discharging"}
    supply(tmp_path, "hidpp_battery_0", capacity="4", **mouse)

    assert power(tmp_path) == MAINS


def test_a_mouse_beside_a_laptops_battery_counts_for_nothing(tmp_path: Path) -> None:
    mouse = {"type": "Battery", "scope": "Device", "status": "Discharging"}
    supply(tmp_path, "BAT-mouse", capacity="4", **mouse)
    supply(tmp_path, "BAT0", type="Battery", capacity="80", status="Charging")

    assert power(tmp_path) == Power(on_mains=True, percent=80)


@pytest.mark.parametrize(
    ("status", "online", "on_mains"),
    [
        ("Discharging", None, False),
        ("Charging", None, True),
        ("Full", None, True),
        ("Not charging", None, True),
        ("Unknown", None, True),
        ("", None, True),
        ("Unknown", "0", False),
        ("Unknown", "1", True),
        ("Discharging", "0", False),
        ("Discharging", "1", True),
        ("Not charging", "0", True),
        ("Discharging", "", False),
        ("Discharging", "nonsense", False),
    ],
)
def test_status_and_line_say_what_powers_it(
    status: str, online: str | None, on_mains: bool, tmp_path: Path
) -> None:
    supply(tmp_path, "BAT0", type="Battery", status=status, capacity="50")
    if online is not None:
        supply(tmp_path, "ADP1", type="Mains", online=online)

    assert power(tmp_path) == Power(on_mains=on_mains, percent=50)


def test_several_batteries_are_one_store(tmp_path: Path) -> None:
    for name, now, full in (("BAT0", "10", "100"), ("BAT1", "200", "200")):
        files = {"energy_now": now, "energy_full": full, "status": "Unknown"}
        supply(tmp_path, name, type="Battery", **files)
    (tmp_path / "sys/class/power_supply/BAT0/status").write_text("Discharging")

    assert power(tmp_path) == Power(on_mains=False, percent=70)


def test_a_bay_without_a_battery_says_nothing(tmp_path: Path) -> None:
    supply(tmp_path, "BAT1", type="Battery", present="0", status="Unknown")

    assert power(tmp_path) == MAINS


def test_a_ups_that_discharges_means_that_the_mains_are_gone(tmp_path: Path) -> None:
    supply(tmp_path, "ups", type="UPS", status="Discharging", capacity="61")

    assert power(tmp_path) == Power(on_mains=False, percent=61)


def test_a_battery_with_a_level_and_no_percentage(tmp_path: Path) -> None:
    files = {"type": "Battery", "status": "Discharging", "capacity_level": "Critical"}
    supply(tmp_path, "battery", **files)

    assert power(tmp_path) == Power(on_mains=False, percent=5)


@pytest.mark.parametrize("said", [b"", b"\xff\xfe", b"unknown", b"-5", b"9" * 5000])
def test_a_file_of_nonsense_leaves_the_rest(
    said: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    battery = supply(tmp_path, "BAT0", type="Battery", status="Discharging")
    (battery / "capacity").write_bytes(said)

    for _ in range(3):
        assert power(tmp_path) == Power(on_mains=False)

    assert caplog.text.count("capacity holds no number") == (said != b"-5")


def test_a_file_that_cannot_be_read_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    battery = supply(tmp_path, "BAT0", type="Battery", status="Discharging")
    (battery / "capacity").mkdir()

    for _ in range(3):
        assert power(tmp_path) == Power(on_mains=False)

    assert caplog.text.count("Is a directory") == 1
