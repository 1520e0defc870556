from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as some

from node.lifecycle.eviction import Eviction, Resident, Shortage, evicted


def a_resident(id_: str, memory: int = 10, **more: Any) -> Resident:
    return Resident(id=id_, memory=memory, **more)


def leaving(*residents: Resident, short: int = 10, **more: Any) -> Eviction:
    return evicted(residents, Shortage(memory=short), **more)


def test_with_room_nothing_leaves() -> None:
    assert leaving(a_resident("a"), short=0) == Eviction()


def test_what_was_used_last_stays() -> None:
    found = leaving(a_resident("a", idle_seconds=1), a_resident("b", idle_seconds=600))

    assert found.ids == ("b",)


def test_what_takes_long_to_load_stays() -> None:
    quick, slow = a_resident("a", reload_seconds=2), a_resident("b", reload_seconds=40)

    assert leaving(slow, quick).ids == ("a",)


def test_a_large_engine_that_was_idle_for_long_leaves_before_two_in_use() -> None:
    small = [a_resident(name, 6, idle_seconds=1) for name in "ab"]
    large = a_resident("c", 60, reload_seconds=10, idle_seconds=6000)

    assert leaving(*small, large).ids == ("c",)


def test_two_small_ones_leave_rather_than_one_that_is_dear() -> None:
    small = [a_resident(name, 6, idle_seconds=60) for name in "ab"]
    large = a_resident("c", 60, reload_seconds=100, idle_seconds=60)

    assert set(leaving(*small, large).ids) == {"a", "b"}


def test_no_more_leave_than_needed() -> None:
    cheap = a_resident("a", 2, reload_seconds=0.1)

    assert leaving(cheap, a_resident("b", 10)).ids == ("b",)


def test_busy_ones_leave_only_if_drained_and_after_idle_ones() -> None:
    busy, idle = a_resident("a", busy=True), a_resident("b", 10, reload_seconds=500)

    assert leaving(busy) == Eviction(verdict="busy")
    assert leaving(busy, drain=True).ids == ("a",)
    assert leaving(busy, idle, drain=True).ids == ("b",)


def test_what_has_just_been_loaded_for_a_request_is_not_even_drained() -> None:
    assert leaving(a_resident("a", held=True), drain=True).verdict == "busy"


def test_pinned_ones_never_leave() -> None:
    pinned = a_resident("a", stays=True)

    assert leaving(pinned, drain=True) == Eviction(verdict="never")
    assert leaving(pinned, a_resident("b")).ids == ("b",)


def test_what_leaves_anyway_is_waited_for_before_another_is_told_to() -> None:
    assert leaving(a_resident("a"), a_resident("b", leaves=True)).ids == ("b",)


def test_memory_of_the_right_gpu_is_freed() -> None:
    here = a_resident("a", 1, gpu_memory=10, gpus=("CUDA0",))
    there = a_resident("b", 1, gpu_memory=10, gpus=("CUDA1",), idle_seconds=9000)
    short = Shortage(memory=0, gpu_memory=5, gpus=("CUDA0",))

    assert evicted((here, there), short).ids == ("a",)


RESIDENTS = some.lists(
    some.builds(
        Resident,
        id=some.uuids().map(str),
        memory=some.integers(1, 50),
        gpu_memory=some.integers(0, 50),
        stays=some.booleans(),
        busy=some.booleans(),
        reload_seconds=some.floats(0, 100),
        idle_seconds=some.floats(0, 1e5),
    ),
    max_size=8,
)
SHORTAGES = some.builds(
    Shortage, memory=some.integers(-9, 99), gpu_memory=some.integers(-9, 99)
)


@given(RESIDENTS, SHORTAGES, some.booleans())
def test_what_leaves_suffices_may_leave_and_is_all_needed(
    residents: list[Resident], short: Shortage, drain: bool
) -> None:
    found = evicted(residents, short, drain=drain)
    gone = [each for each in residents if each.id in found.ids]
    able = [e for e in residents if not e.stays and (drain or not e.busy)]

    assert all(each in able for each in gone)
    assert (found.verdict == "room") == short.after(able).over
    if found.verdict == "room":
        assert short.after(gone).over
        for each in gone:
            assert not short.after(e for e in gone if e is not each).over
