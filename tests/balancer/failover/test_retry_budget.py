"""Failures may make a bounded amount of extra work."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from balancer.failover.stall import RetryBudget


@pytest.mark.parametrize(
    ("in_flight", "allowed"), [(0, 3), (10, 3), (30, 3), (49, 4), (200, 20)]
)
def test_a_tenth_of_what_is_in_flight_but_at_least_three(
    in_flight: int, allowed: int
) -> None:
    budget = RetryBudget()
    budget.in_flight = in_flight

    assert budget.allowed == allowed


def test_beyond_the_budget_nothing_is_granted_until_something_ends() -> None:
    budget = RetryBudget()
    with ExitStack() as stack:
        grants = [stack.enter_context(budget.another()) for _ in range(5)]
        assert grants == [True, True, True, False, False]
        assert budget.left == 0

    assert budget.extra == 0
    with budget.another() as granted:
        assert granted


def test_whatever_fails_gives_back_what_it_took() -> None:
    budget = RetryBudget()
    with pytest.raises(OSError, match="gone"), budget.another():
        raise OSError("gone")

    assert budget.extra == 0
