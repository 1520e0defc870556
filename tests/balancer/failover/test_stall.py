"""Slow is not stuck; stuck is found out."""

from __future__ import annotations

from math import inf

import pytest

from balancer.failover.stall import (
    ExpectedPace,
    Progress,
    Sign,
    is_sooner,
    may_be_late,
)


def showing(*signs: tuple[Sign, float]) -> Progress:
    """The progress of a request that showed these signs of life."""
    progress = Progress()
    for sign, now in signs:
        progress.showed(sign, now)
    return progress


def writing(*signs: tuple[Sign, float]) -> Progress:
    return showing(("head", 0), ("text", 100), *signs)


def test_a_queued_request_is_never_stuck_by_itself() -> None:
    assert Progress().stuck_at(ExpectedPace(token=0.1)) == inf


@pytest.mark.parametrize(
    ("token", "patience"), [(0.05, 5), (1.0, 5), (4.0, 12), (None, 30)]
)
def test_a_decode_is_given_three_times_its_slowest_token(
    token: float | None, patience: float
) -> None:
    assert writing().stuck_at(ExpectedPace(token=token)) == 100 + patience


def test_pings_do_not_excuse_a_decode() -> None:
    assert writing(("ping", 104)).stuck_at(ExpectedPace(token=1)) == 105


def test_a_pi_that_is_silent_for_half_a_minute_of_prefill_is_healthy() -> None:
    reading = showing(("head", 0))

    assert reading.stuck_at(ExpectedPace(batch=8.5)) > 30


def test_progress_events_carry_a_prefill_for_as_long_as_it_takes() -> None:
    reading = showing(("head", 0))
    for second in range(10, 1000, 10):
        reading.showed("progress", second)

    assert reading.stuck_at(ExpectedPace(batch=8.5)) > 1000


def test_pings_carry_a_prefill_but_not_for_ever() -> None:
    reading = showing(("head", 0))
    for second in range(30, 3000, 30):
        reading.showed("ping", second)

    assert 170 <= reading.stuck_at(ExpectedPace(batch=8.5)) < 3000


def test_a_prefill_without_any_sign_is_given_up() -> None:
    reading = showing(("head", 10))

    assert reading.stuck_at(ExpectedPace(batch=1.0, ping=4)) == 20


def test_progress_after_text_does_not_turn_back_to_reading() -> None:
    assert writing(("progress", 101)).phase == "writing"


@pytest.mark.parametrize(("now", "late"), [(104, False), (108, False), (108.1, True)])
def test_late_is_half_again_as_long_as_predicted_and_two_seconds(
    now: float, late: bool
) -> None:
    assert may_be_late(100, 4, now) is late


@pytest.mark.parametrize(
    ("elsewhere", "sooner"), [(None, False), (7.1, False), (7.0, True), (0.1, True)]
)
def test_the_other_engine_has_to_be_a_third_sooner(
    elsewhere: float | None, sooner: bool
) -> None:
    assert is_sooner(elsewhere, 10.0) is sooner
