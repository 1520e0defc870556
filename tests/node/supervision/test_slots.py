import asyncio

import pytest

from edgeserve.errors import FleetBusy
from node.supervision.slots import Slots


def test_a_slot_comes_back_when_the_request_fails() -> None:
    slots = Slots(1, lambda: None)

    with pytest.raises(ZeroDivisionError), slots.claim():
        raise ZeroDivisionError

    assert slots.busy == 0


def test_a_full_engine_refuses_and_says_when_to_come_back() -> None:
    slots = Slots(2, lambda: None)

    with slots.claim(), slots.claim():
        assert slots.full
        with pytest.raises(FleetBusy, match="all 2 slots") as refused, slots.claim():
            pass

    assert refused.value.headers()["retry-after"] == "1"
    assert not slots.full


async def test_hundreds_of_callers_never_hold_more_than_there_is() -> None:
    slots, most, served = Slots(3, lambda: None), 0, 0

    async def caller() -> None:
        nonlocal most, served
        try:
            with slots.claim():
                most = max(most, slots.busy)
                await asyncio.sleep(0)
                served += 1
        except FleetBusy:
            pass

    await asyncio.gather(*(caller() for _ in range(300)))

    assert most == 3
    assert served >= 3
    assert slots.busy == 0


def test_every_claim_and_release_is_reported() -> None:
    told: list[int] = []
    slots = Slots(2, lambda: told.append(slots.busy))

    with slots.claim(), slots.claim():
        pass

    assert told == [1, 2, 1, 0]


def test_a_slot_whose_caller_has_left_stays_busy_until_it_is_freed() -> None:
    slots = Slots(1, lambda: None)

    with slots.claim() as held:
        held.left = True
    still = slots.busy
    slots.freed()

    assert still == 1
    assert slots.busy == slots.left == 0


def test_as_many_stay_busy_as_the_engine_has_requests_without_a_caller() -> None:
    slots = Slots(4, lambda: None)
    with slots.claim() as first, slots.claim() as second:
        first.left = second.left = True

    with slots.claim():
        slots.freed(3)  # one with its caller, and both that were left
        assert slots.busy == 3
        slots.freed(2)
        assert slots.busy == 2
        slots.freed(1)

    assert slots.busy == 0
