"""Which groups were lost lately, and for how long none is formed after that."""

from __future__ import annotations

from balancer.groups.history import FORMED_SECONDS, MOST_FORMED, GroupHistory
from edgeserve.wire import EngineState
from tests.balancer.groups.test_planner import a_group

VARIANT = "big:Q4_1"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def formed(times: int, state: EngineState, lost: str = "") -> GroupHistory:
    """Have a group formed so often, seen each time, which then became like this."""
    history = GroupHistory(Clock())
    for _ in range(times):
        history.formed(VARIANT)
        history.note([a_group("ready")])
        history.note([a_group(state, lost)])
    return history


def test_a_group_that_is_lost_each_time_rests() -> None:
    assert formed(MOST_FORMED - 1, "failed", "pi").rest(VARIANT) == 0
    assert 0 < formed(MOST_FORMED, "failed", "pi").rest(VARIANT) < FORMED_SECONDS


def test_a_group_that_left_in_good_order_does_not_count() -> None:
    assert formed(3 * MOST_FORMED, "leaving").rest(VARIANT) == 0


def test_a_group_that_leaves_after_a_loss_counts() -> None:
    history = formed(MOST_FORMED, "failed", "pi")
    history.note([a_group("leaving")])
    assert history.rest(VARIANT) > 0


def test_a_group_that_is_being_formed_does_not_rest_yet() -> None:
    history = formed(MOST_FORMED - 1, "failed", "pi")
    history.formed(VARIANT)
    assert history.rest(VARIANT) == 0

    history.note([a_group("loading")])
    assert history.rest(VARIANT) > 0
