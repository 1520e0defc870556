from __future__ import annotations

from typing import Any

import pytest

from balancer.lifecycle.swap import LEAST_QUANTUM, Resident, quantum, stays
from tests.balancer.building import a_candidate
from tests.fakes.reports import an_engine

LOAD = 1.0


def a_resident(state: Any = "ready", **fields: Any) -> Resident:
    engine = an_engine("old:Q4_1", state=state, load_seconds=1.0)
    return Resident(to=a_candidate(engine=engine), **fields)


def left(
    resident: Resident, *, oldest: float, now: float, patience: float = 300.0
) -> float:
    return stays(resident, load_seconds=LOAD, oldest=oldest, patience=patience, now=now)


def test_an_engine_that_was_idle_for_a_while_leaves_at_once() -> None:
    assert left(a_resident(worked=0.0), oldest=60, now=60) == 0


def test_an_engine_that_has_just_answered_stays_for_a_moment() -> None:
    assert left(a_resident(worked=60.0), oldest=60, now=60.1) == pytest.approx(0.4)


def test_a_long_load_is_worth_a_pause_of_half_a_second_at_most() -> None:
    engine = an_engine("old:Q4_1", load_seconds=100.0)
    resident = Resident(to=a_candidate(engine=engine), worked=60.0)

    assert left(resident, oldest=60, now=60) == 0.5


@pytest.mark.parametrize("state", ["absent", "leaving", "failed", "quarantined"])
def test_an_engine_that_serves_nothing_is_not_waited_for(state: Any) -> None:
    assert left(a_resident(state, worked=60.0), oldest=60, now=60) == 0


def test_a_wanted_engine_stays_for_a_quantum_after_the_other_was_asked_for() -> None:
    newer = a_resident(busy=True, wanted=[75.0])

    assert left(newer, oldest=60, now=65) == LEAST_QUANTUM - 5
    assert left(newer, oldest=60, now=70) == 0


def test_what_was_asked_for_within_the_quantum_is_served_first() -> None:
    same_batch = a_resident(busy=True, wanted=[60.5])

    assert left(same_batch, oldest=60, now=75) > 0
    assert left(a_resident(busy=True, drains=0.5), oldest=60, now=75) == 0


def test_a_batch_gives_way_before_the_other_requests_wait_in_vain() -> None:
    same_batch = a_resident(busy=True, wanted=[60.5])

    assert left(same_batch, oldest=60, now=60 + 150, patience=300) == 0


def test_an_engine_that_was_loaded_keeps_its_place_for_a_quantum() -> None:
    loaded = a_resident(busy=True, wanted=[68.0], loaded=70.0)

    assert left(loaded, oldest=50, now=71) == LEAST_QUANTUM - 1
    assert left(loaded, oldest=50, now=80) == 0


def test_an_engine_that_loads_is_not_evicted_for_another() -> None:
    assert left(a_resident("loading", loaded=99.0), oldest=0, now=99) > 0


def test_the_quantum_grows_with_the_loads_and_stays_within_the_patience() -> None:
    assert quantum(a_resident(), 9.0, 300.0) == 40.0
    assert quantum(a_resident(), 9.0, 60.0) == 21.0
    assert quantum(a_resident(), 9.0, 1.0) == 0.0
