from __future__ import annotations

from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from balancer.simulate.commands import ENERGY_EXAMPLE, simulate
from balancer.simulate.energy.compare import HOUSEHOLD, a_day, compare, with_watts
from balancer.simulate.fleets import Machine, load
from edgeserve.errors import SettingsError


def test_on_a_day_sleep_and_the_preference_trade_joules_for_seconds() -> None:
    calls = a_day(60, seed=2)
    rows = {
        (each.prefer, each.sleeps): each for each in compare(HOUSEHOLD, calls, seed=2)
    }
    speed, energy = rows["speed", False], rows["energy", False]
    asleep, frugal = rows["speed", True], rows["energy", True]

    assert energy.work < speed.work
    assert energy.whole_p95 > speed.whole_p95
    assert asleep.kwh < 0.75 * speed.kwh
    assert frugal.kwh < asleep.kwh
    assert asleep.wakes
    assert all(each.shares for each in rows.values())


def test_the_same_seed_gives_the_same_day() -> None:
    assert a_day(20, seed=3) == a_day(20, seed=3)
    night = [e for e in a_day(400, seed=3) if e.after is None and e.at < 6 * 3600]
    assert len(night) < 400 / 6


def test_the_command_prints_each_preference_with_and_without_sleep() -> None:
    done = CliRunner().invoke(simulate, ["--energy", "--chats", "5"])

    assert done.exit_code == 0, done.output
    times, _, shares = done.output.partition("share of the requests")
    for prefer in ("speed", "balanced", "energy"):
        assert times.count(prefer) == shares.count(prefer) == 2
    assert "…" not in done.output, "no figure is cut off in 80 columns"


def test_the_fleet_with_watts_in_the_help_is_one(tmp_path: Path) -> None:
    _, _, tables = ENERGY_EXAMPLE.partition(":\n")
    (tmp_path / "fleet.toml").write_text(tables)
    (gpu,) = with_watts(load(str(tmp_path / "fleet.toml")))

    assert (gpu.idle, gpu.full, gpu.boot) == (60, 330, 15)


@pytest.mark.parametrize(
    ("watts", "says"),
    [
        ({}, "the watts of pi: `idle`"),
        ({"idle": 9.0, "full": 8.0}, "the watts of pi: `idle`"),
        ({"idle": nan, "full": 8.0}, "the watts of pi: `idle`"),
        ({"idle": 3.0, "full": inf}, "the watts of pi: `idle`"),
        ({"idle": 3.0, "full": 8.0, "boot": -1.0}, "`boot` of pi is -1;"),
    ],
)
def test_machines_without_watts_are_refused(watts: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        with_watts([Machine(name="pi", prefill=24, decode=6, **watts)])


@pytest.mark.parametrize("other", ["--autoscale", "--policy=oracle", "--save=day"])
def test_what_belongs_to_other_comparisons_is_refused(other: str) -> None:
    done = CliRunner().invoke(simulate, ["--energy", "--chats", "5", other])

    assert "--energy takes no --autoscale, --policy or --save" in done.output
