from __future__ import annotations

import logging
from pathlib import Path

import pytest

from edgeserve.reports.hardware import Cpu, Gpu, Power
from node.hardware.gpus import program_output
from node.hardware.watts import COMMAND_EVERY, Meters, Reading, first_number
from node.hardware.watts_table import typical


class Clock:
    """A clock that tests set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def file(root: Path, path: str, content: str) -> Path:
    found = root / path
    found.parent.mkdir(parents=True, exist_ok=True)
    found.write_text(content)
    return found


def a_counter(
    root: Path, zone: str, name: str, joules: float, most: int = 1000
) -> None:
    folder = f"sys/class/powercap/{zone}"
    file(root, f"{folder}/name", name)
    file(root, f"{folder}/energy_uj", str(round(joules * 1e6)))
    file(root, f"{folder}/max_energy_range_uj", str(most * 10**6))


def test_watts_of_the_processor_are_what_its_counters_gained(tmp_path: Path) -> None:
    clock = Clock()
    meters = Meters(root=tmp_path, clock=clock)
    found = Reading()
    for joules in (10.0, 70.0):
        a_counter(tmp_path, "intel-rapl:0", "package-0", joules)
        a_counter(tmp_path, "intel-rapl:0:1", "dram", joules / 10)
        a_counter(tmp_path, "intel-rapl:0:0", "core", joules)
        found = meters()
        clock.now += 2.0

    assert found == Reading(33.0, "RAPL")


def test_a_counter_that_begins_anew_loses_nothing(tmp_path: Path) -> None:
    clock = Clock()
    meters = Meters(root=tmp_path, clock=clock)
    found = Reading()
    for joules in (990.0, 30.0):
        a_counter(tmp_path, "intel-rapl:0", "package-0", joules, most=1000)
        found = meters()
        clock.now += 4.0

    assert found.watts == 10.0


def test_counters_that_root_alone_may_read_are_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    a_counter(tmp_path, "intel-rapl:0", "package-0", 1.0)
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").write_text("")
    monkeypatch.setattr("os.access", lambda *_: False)
    meters = Meters(root=tmp_path)
    with caplog.at_level(logging.WARNING):
        assert [meters() for _ in range(3)] == [Reading()] * 3

    assert caplog.text.count("by root only") == 1


@pytest.mark.parametrize(
    "files",
    [
        {"power_now": "12500000"},
        {"current_now": "-1000000", "voltage_now": "12500000"},
    ],
)
def test_what_a_battery_loses_is_what_the_machine_takes(
    files: dict[str, str], tmp_path: Path
) -> None:
    supply = "sys/class/power_supply/BAT0"
    for name, said in {"type": "Battery", "status": "Discharging", **files}.items():
        file(tmp_path, f"{supply}/{name}", said)

    assert Meters(root=tmp_path)() == Reading(12.5, "battery")


def test_a_battery_that_is_charged_tells_nothing(tmp_path: Path) -> None:
    for name, said in {
        "type": "Battery",
        "status": "Charging",
        "power_now": "9",
    }.items():
        file(tmp_path, f"sys/class/power_supply/BAT0/{name}", said)

    assert Meters(root=tmp_path)() == Reading()


@pytest.mark.parametrize(
    ("name", "source"), [("power_meter", "sensor"), ("amdgpu", "GPU")]
)
def test_sensors_of_boards_and_cards_are_read(
    name: str, source: str, tmp_path: Path
) -> None:
    file(tmp_path, "sys/class/hwmon/hwmon0/name", name)
    file(tmp_path, "sys/class/hwmon/hwmon0/power1_average", "48000000")

    assert Meters(root=tmp_path)() == Reading(48.0, source)


def test_processor_and_cards_are_added(tmp_path: Path) -> None:
    clock = Clock()
    meters = Meters(root=tmp_path, clock=clock, run=lambda *_: "120.5\n[N/A]\n30\n")
    found = Reading()
    for joules in (0.0, 20.0):
        a_counter(tmp_path, "intel-rapl:0", "package-0", joules)
        found = meters(gpus=True)
        clock.now += 1.0

    assert found == Reading(170.5, "RAPL and GPU")


def test_the_owners_command_counts_before_all_and_runs_rarely(tmp_path: Path) -> None:
    asked = list[tuple[str, ...]]()

    def run(argv: tuple[str, ...], _: float) -> str:
        asked.append(argv)
        return '{"power": 23.4}'

    clock = Clock()
    file(tmp_path, "sys/class/hwmon/hwmon0/name", "power_meter")
    file(tmp_path, "sys/class/hwmon/hwmon0/power1_input", "99000000")
    meters = Meters("ask the plug", tmp_path, clock, run)

    assert [meters(), meters()] == [Reading(23.4, "power_command")] * 2
    assert asked == [("sh", "-c", "ask the plug")]
    clock.now += COMMAND_EVERY
    meters()
    assert len(asked) == 2


def test_a_command_that_prints_nonsense_or_fails_is_a_sentence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert Meters("echo unavailable")() == Reading(None, "power_command")
        assert Meters("echo broken >&2; exit 3")().watts is None

    assert "power_command printed no number of watts: 'unavailable'" in caplog.text
    assert "power_command printed no number of watts: ''" in caplog.text
    assert "gives no answer: broken" in caplog.text


def test_a_command_that_hangs_ends_with_all_that_it_has_started(tmp_path: Path) -> None:
    left = tmp_path / "left"
    command = f"sleep 600 & echo $! >{left}; wait"

    assert program_output(("sh", "-c", command), 2.0) == ""
    status = Path("/proc", left.read_text().strip(), "status")
    assert not status.exists() or "zombie" in status.read_text()


@pytest.mark.parametrize(
    ("said", "watts"),
    [("12", 12.0), ("power: 3.5 W", 3.5), ("-1", None), ("0", None), ("9e9", 9.0),
     ("10000000", None), ("", None)],
)  # fmt: skip
def test_watts_are_the_first_number_that_makes_sense(
    said: str, watts: float | None
) -> None:
    assert first_number(said) == watts


def cpu(model: str, cores: int = 4) -> Cpu:
    return Cpu(model=model, physical_cores=cores, logical_cores=cores, load=0.0)


def test_a_table_knows_boards_laptops_and_cards() -> None:
    mains, battery = Power(on_mains=True), Power(on_mains=True, percent=80)
    card = Gpu(name="NVIDIA", memory_total=24 * 2**30, memory_free=0)
    pi = typical(cpu("Raspberry Pi 5 Model B Rev 1.0"), mains, ())
    laptop = typical(cpu("some", 8), battery, ())
    desktop = typical(cpu("some", 8), mains, ())
    gpu = typical(cpu("some", 8), mains, (card,))

    assert pi < laptop < desktop < gpu
    assert all(idle < full for idle, full in (pi, laptop, desktop, gpu))
