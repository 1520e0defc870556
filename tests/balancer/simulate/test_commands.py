import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from balancer.simulate.commands import FLEET_EXAMPLE, simulate
from balancer.simulate.fleets import load as load_fleet
from edgeserve.errors import CommandError, SettingsError

FEW = ["--chats", "8", "--policy", "edgeserve", "--policy", "round-robin"]


def output(*arguments: str) -> str:
    result = CliRunner().invoke(simulate, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_it_prints_a_row_for_each_policy_and_a_column_for_each_machine() -> None:
    shown = output("--fleet", "home", *FEW)

    assert "edgeserve" in shown
    assert "round-robin" in shown
    assert "laptop-2" in shown


def test_json_has_the_same_figures_every_time() -> None:
    once, again = (output("--fleet", "cpu-only", "--json", *FEW) for _ in range(2))

    assert once == again
    assert [row["policy"] for row in json.loads(once)] == ["edgeserve", "round-robin"]


def test_a_trace_that_was_saved_is_replayed(tmp_path: Path) -> None:
    file = str(tmp_path / "trace.jsonl")
    made_up = output("--fleet", "cpu-only", "--save", file, "--json", *FEW)

    replayed = output("--fleet", "cpu-only", "--trace", file, "--json", *FEW)

    assert json.loads(replayed)[0]["calls"] == json.loads(made_up)[0]["calls"]


def test_no_figure_is_cut_off_in_a_pipe() -> None:
    assert "…" not in output("--fleet", "home", *FEW)


def test_the_fleet_in_the_help_is_one(tmp_path: Path) -> None:
    _, _, tables = FLEET_EXAMPLE.partition(":\n")
    (tmp_path / "fleet.toml").write_text(tables)

    fleet = load_fleet(str(tmp_path / "fleet.toml"))

    assert [each.name for each in fleet] == ["pi-1", "pi-2", "pi-3"]


def test_a_trace_that_cannot_be_kept_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot write"):
        output("--save", str(tmp_path / "nowhere" / "x"), *FEW)


def test_a_trace_without_requests_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()

    with pytest.raises(SettingsError, match="holds no request"):
        output("--trace", str(tmp_path / "empty"))


def test_an_unknown_policy_is_answered_with_those_there_are() -> None:
    with pytest.raises(SettingsError, match="oracle"):
        output("--policy", "best")
