"""When an engine is trusted, doubted, left alone, and tried again."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.health.breaker import GOOD, LAST_RESORT, OUT, SUSPECT, ranks, worse
from balancer.health.circuit import Circuit

READY = Circuit(state="ready")


def after(outcomes: str, health: Circuit = READY, now: float = 0.0) -> Circuit:
    """Let `+` succeed and `-` fail, one a second."""
    for outcome in outcomes:
        now += 1
        health = health.succeeded(now) if outcome == "+" else health.failed(now, 0)
    return health


def opened(times: int = 1) -> Circuit:
    health = after("---")
    for _ in range(times - 1):
        assert health.probe_at is not None
        probe = health.probing(health.probe_at)
        health = probe.probed(well=False, now=probe.since, jitter=0)
    return health


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ("-", "suspect"),
        ("--", "suspect"),
        ("---", "open"),
        ("--+--+", "ready"),
        ("-+-+-+-+-+", "ready"),
        ("-+-+-+-+-+-", "suspect"),
        ("--+--+--", "open"),
        ("+" * 20 + "-", "suspect"),
    ],
)
def test_three_in_a_row_or_six_of_ten_open(outcomes: str, state: str) -> None:
    assert after(outcomes).state == state


def test_one_failure_in_probation_is_enough() -> None:
    assert Circuit().failed(1.0, 0).state == "open"


def test_back_off_doubles_to_a_minute() -> None:
    health, delays = opened(), list[float]()
    for _ in range(8):
        assert health.probe_at is not None
        delays.append(health.probe_at - health.since)
        probe = health.probing(health.probe_at)
        health = probe.probed(well=False, now=health.probe_at, jitter=0)

    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]


@given(st.floats(0, 1))
def test_jitter_only_shortens(jitter: float) -> None:
    health = after("--").failed(10.0, jitter)

    assert health.probe_at is not None
    assert 0.75 <= health.probe_at - 10 <= 1


def test_no_users_request_closes_an_open_breaker() -> None:
    half_open = opened().probing(5)

    assert opened().succeeded(5) == opened()
    assert half_open.succeeded(6) == half_open
    assert half_open.state == "half-open"


def test_a_late_failure_does_not_lengthen_the_back_off() -> None:
    assert opened().failed(3.5, 0) == opened()


def test_a_probe_that_succeeds_lets_it_begin_slowly() -> None:
    back = opened().probing(5).probed(well=True, now=6, jitter=0)

    assert back.state == "probation"
    assert back.usable(4, 6) == 1


@pytest.mark.parametrize(
    ("seconds", "slots"), [(0, 1), (10, 3), (20, 5), (29.9, 7), (30, 8), (99, 8)]
)
def test_slots_ramp_up_over_half_a_minute(seconds: float, slots: int) -> None:
    assert Circuit(since=100).usable(8, 100 + seconds) == slots


def test_three_successes_end_the_slow_start_and_are_proof() -> None:
    back = opened(3).probing(50).probed(well=True, now=51, jitter=0)

    proved = after("+++", back, 51)

    assert proved.state == "ready"
    assert proved.opened == 0
    assert proved.usable(8, 54) == 8


def test_time_alone_ends_the_slow_start_but_is_no_proof() -> None:
    back = opened(3).probing(50).probed(well=True, now=51, jitter=0)

    again = after("---", back, 100)

    assert back.opened == 3
    assert again.probe_at == pytest.approx(again.since + 8)


def test_a_doubt_asks_for_a_probe_at_once_and_counts_for_nothing_by_itself() -> None:
    doubted = READY.doubted(7)

    assert doubted.state == "suspect"
    assert doubted.wants_probe(7)
    assert doubted.recent == ()
    assert doubted.probing(7).probed(well=True, now=8, jitter=0).state == "ready"


def test_doubts_that_probes_confirm_open() -> None:
    health = READY
    for second in range(3):
        health = health.doubted(second).probing(second)
        health = health.probed(well=False, now=second, jitter=0)

    assert health.state == "open"


def test_a_suspect_is_probed_after_a_second_and_healed_by_it() -> None:
    suspect = after("-")

    assert not suspect.wants_probe(1.5)
    assert suspect.wants_probe(2)
    assert suspect.probing(2).probed(well=True, now=3, jitter=0).state == "ready"


def test_a_probe_of_which_nothing_is_heard_is_sent_again() -> None:
    lost = opened().probing(5)

    assert not lost.wants_probe(64)
    assert lost.wants_probe(65)


HAPPENINGS: dict[str, Callable[[Circuit, float], Circuit]] = {
    "succeed": Circuit.succeeded,
    "fail": lambda health, now: health.failed(now, 0.5),
    "doubt": Circuit.doubted,
    "probe": lambda health, now: (
        health.probing(now) if health.wants_probe(now) else health
    ),
    "well": lambda health, now: health.probed(well=True, now=now, jitter=0.5),
    "ill": lambda health, now: health.probed(well=False, now=now, jitter=0.5),
}
steps = st.lists(
    st.tuples(st.sampled_from(sorted(HAPPENINGS)), st.floats(0, 100)), max_size=60
)


@given(steps)
def test_whatever_happens_users_are_kept_from_an_open_breaker(
    happenings: list[tuple[str, float]],
) -> None:
    now, seen = 0.0, [Circuit()]
    for what, seconds in happenings:
        now += seconds
        seen.append(HAPPENINGS[what](seen[-1], now))

    for before, here in pairwise(seen):
        assert 0 <= here.usable(4, now) <= 4
        assert (here.usable(4, now) == 0) == (here.state in {"open", "half-open"})
        assert 0 <= here.risk < 1
        if before.state == "open":
            assert here.state in {"open", "half-open"}
        if here.state in {"open", "half-open", "suspect"}:
            assert here.probe_at is not None


def test_failures_count_more_than_load() -> None:
    records = {"fast liar": after("-"), "slow": READY}

    found = ranks(records, {"fast liar": 8, "slow": 1}, now=1)

    assert found["slow"].rank == GOOD < SUSPECT == found["fast liar"].rank


def test_the_last_engine_is_never_shut_out() -> None:
    found = ranks({"only": opened()}, {"only": 4}, now=3)

    assert found["only"].rank == LAST_RESORT
    assert found["only"].usable == 4


def test_no_more_than_half_of_the_capacity_is_shut_out_and_the_worst_goes_first() -> (
    None
):
    records = {"a": opened(1), "b": opened(4), "c": opened(2), "d": READY}

    found = ranks(records, dict.fromkeys(records, 2), now=3)

    assert {key: each.rank for key, each in found.items()} == {
        "a": LAST_RESORT,
        "b": OUT,
        "c": OUT,
        "d": GOOD,
    }


healths = st.sampled_from([READY, Circuit(), after("-"), opened(1), opened(3)])


@given(
    st.dictionaries(st.integers(), st.tuples(healths, st.integers(1, 9)), min_size=1)
)
def test_one_engine_and_half_of_the_slots_always_stay(
    fleet: dict[int, tuple[Circuit, int]],
) -> None:
    slots = {key: slots for key, (_, slots) in fleet.items()}
    found = ranks({key: health for key, (health, _) in fleet.items()}, slots, 99)

    out = [key for key, each in found.items() if each.rank == OUT]
    assert sum(slots[key] for key in out) * 2 <= sum(slots.values())
    assert len(out) < len(fleet)
    assert all((found[key].usable == 0) == (key in out) for key in fleet)


def test_an_engine_is_no_better_than_its_node() -> None:
    assert worse(READY, after("-")) == after("-")
    assert worse(opened(), after("-")) == opened()
