"""A second engine is asked only where the first shows no sign of work."""

from __future__ import annotations

import pytest

from balancer.hedge import Running, should_hedge

LATE = Running(started=100, predicted=4, remaining=10, progressed=False)


def hedged(
    running: Running = LATE,
    elsewhere: float | None = 2.0,
    budget_left: int = 1,
    now: float = 109,
) -> bool:
    return should_hedge(running, elsewhere=elsewhere, budget_left=budget_left, now=now)


def test_a_late_request_without_progress_is_asked_elsewhere_too() -> None:
    assert hedged()


@pytest.mark.parametrize(("now", "hedge"), [(104, False), (108, False), (108.1, True)])
def test_late_is_half_again_as_long_as_predicted_and_two_seconds(
    now: float, hedge: bool
) -> None:
    assert LATE.late_at == 108
    assert hedged(now=now) is hedge


def test_slow_is_not_late_while_there_is_progress() -> None:
    slow = Running(started=0, predicted=1, remaining=99, progressed=True)

    assert not hedged(slow)


@pytest.mark.parametrize(
    ("elsewhere", "hedge"), [(None, False), (7.1, False), (7.0, True), (0.1, True)]
)
def test_the_other_engine_has_to_be_a_third_sooner(
    elsewhere: float | None, hedge: bool
) -> None:
    assert hedged(elsewhere=elsewhere) is hedge


def test_without_budget_nothing_is_hedged() -> None:
    assert not hedged(budget_left=0)
