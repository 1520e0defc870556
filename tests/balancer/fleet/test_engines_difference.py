"""What differs between two lists of engines, and whether that matters for routing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from balancer.fleet.engines import Difference, EngineCandidate, is_as_eligible
from tests.balancer.building import a_candidate
from tests.fakes.reports import HARDWARE

A, B, C = (a_candidate(name) for name in "abc")


def with_engine(of: EngineCandidate, **fields: Any) -> EngineCandidate:
    return replace(of, engine=msgspec.structs.replace(of.engine, **fields))


def test_what_stays_the_same_object_has_not_changed() -> None:
    assert Difference.of((A, B), (A, B)) == Difference([], ())


def test_a_change_is_known_with_what_was_before() -> None:
    busy = with_engine(B, busy=1)

    assert Difference.of((A, B), (A, busy)) == Difference([(B, busy)], ())


@pytest.mark.parametrize("after", [(A, C), (C, A), (C,)])
def test_what_comes_and_goes_is_known(after: tuple[EngineCandidate, ...]) -> None:
    found = Difference.of((A, B), after)

    assert found.pairs == [(None, C)]
    assert found.gone == [each.key for each in (A, B) if each not in after]


def test_another_order_is_no_change() -> None:
    assert Difference.of((A, B, C), (C, A, B)) == Difference([], [])


@pytest.mark.parametrize("fields", [{"busy": 1}, {"state": "busy", "busy": 2}])
def test_taken_slots_leave_an_engine_as_eligible(fields: dict[str, Any]) -> None:
    assert is_as_eligible(A, with_engine(A, **fields))
    assert is_as_eligible(with_engine(A, **fields), A)


def test_so_do_the_readings_of_its_machine() -> None:
    assert is_as_eligible(A, replace(A, hardware=HARDWARE))


@pytest.mark.parametrize(
    "fields",
    [{"state": "loading"}, {"epoch": 7}, {"context": 8}, {"last_resort": True}],
)
def test_all_else_of_an_engine_matters(fields: dict[str, Any]) -> None:
    assert not is_as_eligible(A, with_engine(A, **fields))


@pytest.mark.parametrize(
    "fields", [{"unavailable": "full"}, {"rank": 1}, {"risk": 0.5}]
)
def test_so_does_all_else_of_a_candidate(fields: dict[str, Any]) -> None:
    assert not is_as_eligible(A, replace(A, **fields))
