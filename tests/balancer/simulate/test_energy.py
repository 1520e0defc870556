from __future__ import annotations

from click.testing import CliRunner

from balancer.simulate.commands import simulate
from balancer.simulate.energy.compare import HOUSEHOLD, a_day, compare


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
    done = CliRunner().invoke(
        simulate, ["--energy", "--chats", "5"], env={"COLUMNS": "80"}
    )

    assert done.exit_code == 0, done.output
    assert "…" not in done.output
    for prefer in ("speed", "balanced", "energy"):
        for idle in ("awake", "sleep"):
            assert done.output.count(f"{prefer}, {idle}") == 2  # figures and shares
