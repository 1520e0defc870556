from pathlib import Path

import pytest

from balancer.simulate.compare import made_up
from balancer.simulate.fleets import FLEETS
from balancer.simulate.fleets import load as load_fleet
from balancer.telemetry.trace import load, save
from edgeserve.errors import SettingsError


def test_a_trace_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    calls = made_up(FLEETS["home"], 0.7, 20, seed=1)

    save(tmp_path / "trace.jsonl", calls)
    again = load(tmp_path / "trace.jsonl")

    assert [call.prompt for call in again] == [call.prompt for call in calls]
    assert [call.reply for call in again] == [call.reply for call in calls]
    assert [call.at for call in again] == pytest.approx([c.at for c in calls], abs=1e-4)


def test_a_file_that_is_no_trace_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"id": 1}\n')

    with pytest.raises(SettingsError, match="is not a trace"):
        load(tmp_path / "x.jsonl")


def test_a_fleet_file_describes_machines(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(
        '[[machine]]\nname = "pi"\ncount = 2\nprefill = 25\ndecode = 6\n'
        '[[machine]]\nname = "gpu"\nslots = 4\nprefill = 2200\ndecode = 90\n'
    )

    fleet = load_fleet(str(file))

    assert [machine.name for machine in fleet] == ["pi-1", "pi-2", "gpu"]
    assert fleet[2].slots == 4


@pytest.mark.parametrize(
    "text", ["machine = 3", "[[machine]]\nname = 'x'", "[[", "\udcff"]
)
def test_a_wrong_fleet_file_is_refused_with_the_reason(
    tmp_path: Path, text: str
) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(text, errors="surrogateescape")

    with pytest.raises(SettingsError, match="is not a fleet file"):
        load_fleet(str(file))


def test_an_unknown_fleet_is_answered_with_those_there_are() -> None:
    with pytest.raises(SettingsError, match="six-equal"):
        load_fleet("nowhere")
