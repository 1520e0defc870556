"""Each rule for loading, on every kind of traffic: what was promised of it."""

import json
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner

from balancer.simulate.commands import HOST_EXAMPLE, simulate
from balancer.simulate.loading.compare import LOADING, LoadingFigures, compare
from balancer.simulate.loading.fleets import HOST_FLEETS
from balancer.simulate.loading.fleets import load as load_fleet
from balancer.simulate.loading.traffic import PATTERNS, made_up
from balancer.simulate.loading.world import play
from edgeserve.errors import CommandError, SettingsError


@cache
def reached(pattern: str) -> dict[str, LoadingFigures]:
    fleet = HOST_FLEETS[PATTERNS[pattern][0]]
    rows = compare(fleet, made_up(pattern, fleet.models, seed=1))
    return {each.policy: each for each in rows}


@pytest.mark.parametrize("pattern", ["bursts", "diurnal"])
def test_autoscaling_halves_the_wait_at_p95(pattern: str) -> None:
    rows = reached(pattern)

    for other in ("no-autoscale", "llama-swap", "ollama"):
        assert rows["edgeserve"].wait_p95 < 0.5 * rows[other].wait_p95


def test_what_alternates_is_loaded_as_rarely_as_can_be() -> None:
    rows = reached("alternate")

    assert rows["edgeserve"].loads == 2
    assert rows["ollama"].loads == 120


def test_with_one_machine_autoscaling_changes_nothing() -> None:
    rows = reached("rounds")

    assert rows["edgeserve"].loads == rows["no-autoscale"].loads
    assert rows["edgeserve"].unloads == 0


def test_autoscaling_does_not_flap() -> None:
    for pattern in ("bursts", "diurnal"):
        row = reached(pattern)["edgeserve"]

        assert row.loads < 40
        assert row.unloads < 20


@pytest.mark.parametrize("name", LOADING)
@pytest.mark.parametrize("pattern", ["rounds", "bursts"])
def test_every_request_is_answered_and_no_memory_is_taken_twice(
    pattern: str, name: str
) -> None:
    fleet = HOST_FLEETS[PATTERNS[pattern][0]]
    policy = LOADING[name](fleet)

    outcomes = play(fleet, made_up(pattern, fleet.models, seed=2)[:200], policy)

    assert all(each.arrived <= each.started <= each.ended for each in outcomes)
    assert all(each.running == 0 for each in policy.memory.engines)
    assert all(policy.memory.free(host) >= 0 for host in fleet.memory)


def test_the_same_seed_gives_the_same_figures() -> None:
    fleet = HOST_FLEETS["one-box"]
    calls = made_up("rounds", fleet.models, seed=3)

    assert compare(fleet, calls) == compare(fleet, calls)


def output(*arguments: str) -> str:
    result = CliRunner().invoke(
        simulate, ("--autoscale", *arguments), catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_command_shows_a_row_for_each_rule() -> None:
    shown = output("--traffic", "rounds")

    assert all(name in shown for name in LOADING)
    assert "…" not in shown


def test_json_has_the_figures_of_each_traffic(tmp_path: Path) -> None:
    arguments = ("--policy", "llama-swap", "--json")
    trace = str(tmp_path / "trace.jsonl")
    made = output("--traffic", "rounds", "--save", trace, *arguments)
    again = output("--trace", trace, "--fleet", "one-box", *arguments)

    [row] = json.loads(made)["rounds"]
    [replayed] = json.loads(again)["trace.jsonl"]
    assert (row["policy"], row["loads"]) == ("llama-swap", 40)
    assert replayed["calls"] == row["calls"]


@pytest.mark.parametrize(
    "arguments", [("--traffic", "rounds"), ("--autoscale", "--save", "x")]
)
def test_options_that_do_not_fit_are_refused(arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(simulate, arguments).exit_code == 2


def test_the_fleet_in_the_help_is_one(tmp_path: Path) -> None:
    _, _, tables = HOST_EXAMPLE.partition(":\n")
    (tmp_path / "fleet.toml").write_text(tables)

    fleet = load_fleet(str(tmp_path / "fleet.toml"))

    assert [each.name for each in fleet.engines] == ["box-1/small", "box-2/small"]


def test_what_cannot_be_simulated_is_one_sentence(tmp_path: Path) -> None:
    huge = HOST_EXAMPLE.partition(":\n")[2].replace("memory = 8", "memory = 2")
    (tmp_path / "huge.toml").write_text(huge)
    fleet = HOST_FLEETS["one-box"]

    with pytest.raises(SettingsError, match="does not fit"):
        load_fleet(str(tmp_path / "huge.toml"))
    with pytest.raises(SettingsError, match="built in: one-box"):
        load_fleet("nowhere.toml")
    with pytest.raises(SettingsError, match="llama-swap"):
        compare(fleet, [], ["best"])
    with pytest.raises(CommandError, match="no machine has large"):
        compare(fleet, made_up("bursts", ["large"], seed=1)[:1])
