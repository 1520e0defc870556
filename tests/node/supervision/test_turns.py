from __future__ import annotations

import pytest

from edgeserve.errors import FleetBusy
from node.supervision.slots import Slots
from node.supervision.turns import (
    DOUBTED_SECONDS,
    KEPT_SECONDS,
    MOST_BALANCERS,
    WAITING_SECONDS,
    Turns,
)


def taken(*by: str) -> Turns:
    turns = Turns()
    for each in by:
        turns.take(each)
    return turns


def test_alone_a_balancer_may_take_every_slot() -> None:
    turns = taken("a", "a", "a")
    turns.waits("a", 9, now=0.0)

    assert turns.allow("a", 1, now=0.1)


def test_a_slot_that_comes_free_goes_to_the_one_that_waits_and_has_fewest() -> None:
    turns = taken("a", "a", "a", "a")
    turns.waits("b", 5, now=0.0)
    turns.give_back("a")

    assert not turns.allow("a", 1, now=0.1)
    assert turns.allow("b", 1, now=0.1)


def test_who_has_its_share_keeps_the_other_from_nothing() -> None:
    turns = taken("a", "a", "b", "b")
    turns.waits("b", 5, now=0.0)
    turns.give_back("a")

    assert turns.allow("a", 1, now=0.1)


def test_one_slot_goes_to_each_in_turn() -> None:
    turns, had = Turns(), list[str]()
    for now in range(6):
        turns.waits("a", 3, float(now))
        turns.waits("b", 3, float(now))
        turns.waits("c", 3, float(now))
        by = next(each for each in "abc" if turns.allow(each, 1, float(now)))
        turns.take(by)
        turns.give_back(by)
        had.append(by)

    assert "".join(had) == "abcabc"


def test_no_more_slots_are_kept_than_requests_wait() -> None:
    turns = taken("a", "a", "a")
    turns.waits("b", 1, now=0.0)
    turns.give_back("a")
    turns.give_back("a")

    assert turns.allow("a", 2, now=0.1)


def test_what_a_balancer_has_said_does_not_count_for_long() -> None:
    turns = taken("a")
    turns.waits("b", 1, now=0.0)
    turns.give_back("a")

    assert not turns.allow("a", 1, now=WAITING_SECONDS - 0.1)
    assert turns.allow("a", 1, now=WAITING_SECONDS)


def test_nor_once_it_says_that_nothing_waits() -> None:
    turns = taken("a")
    turns.waits("b", 1, now=0.0)
    turns.waits("b", 0, now=0.1)
    turns.give_back("a")

    assert turns.allow("a", 1, now=0.2)


def test_a_slot_is_not_kept_for_one_that_does_not_come() -> None:
    turns = taken("a")
    turns.give_back("a")
    turns.waits("b", 1, now=0.0)

    assert not turns.allow("a", 1, now=0.0)
    assert turns.allow("a", 1, now=KEPT_SECONDS)
    turns.waits("b", 1, now=1.0)
    assert turns.allow("a", 1, now=1.0)
    turns.waits("b", 1, now=KEPT_SECONDS + DOUBTED_SECONDS)
    assert not turns.allow("a", 1, now=KEPT_SECONDS + DOUBTED_SECONDS)


def test_who_no_longer_waited_for_a_slot_has_let_none_pass() -> None:
    turns = taken("a")
    turns.give_back("a")
    turns.waits("b", 1, now=0.0)
    assert not turns.allow("a", 1, now=0.0)
    turns.waits("b", 0, now=0.1)
    turns.waits("b", 1, now=2.0)

    assert not turns.allow("a", 1, now=2.0)


def test_nor_has_one_that_was_not_heard_of_for_a_while() -> None:
    turns = taken("a")
    turns.give_back("a")
    turns.waits("b", 1, now=0.0)
    assert not turns.allow("a", 1, now=0.0)
    turns.waits("b", 1, now=WAITING_SECONDS)

    assert not turns.allow("a", 1, now=WAITING_SECONDS)


def test_nor_has_one_whose_slot_a_third_has_taken() -> None:
    now = 0.0
    slots = Slots(1, lambda: None, lambda: now)
    for by in "ba":
        with slots.claim(by):
            pass
    slots.waits("b", 1)
    with pytest.raises(FleetBusy), slots.claim("a"):
        pass
    with slots.claim("c"):  # it has had no turn at all
        now = 1.0
    slots.waits("b", 1)

    with pytest.raises(FleetBusy), slots.claim("a"):
        pass


def test_clients_that_are_no_balancers_wait_their_turn_as_well() -> None:
    turns = taken("", "")
    turns.waits("b", 1, now=0.0)
    turns.give_back("")

    assert not turns.allow("", 1, now=0.1)


def test_balancers_that_have_gone_are_forgotten() -> None:
    turns = Turns()
    for each in range(3 * MOST_BALANCERS):
        turns.take(str(each))
        turns.give_back(str(each))

    assert len(turns) <= MOST_BALANCERS
