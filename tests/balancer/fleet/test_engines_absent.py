"""Engines that are on a node's disk and not in its memory."""

from __future__ import annotations

from typing import Any

import pytest

from balancer.fleet.catalog import catalog, entries
from balancer.fleet.engines import NOT_LOADED, Candidates, candidates
from balancer.fleet.slot_counts import SlotCounts
from balancer.health.breaker import CircuitBreakers
from balancer.routing.abilities import able_to
from edgeserve.errors import BadRequest
from edgeserve.orders.engines import DesiredModel
from edgeserve.wire import EngineReport
from tests.balancer.building import a_candidate, a_fleet, a_request
from tests.fakes.reports import a_report, an_engine


def absent(variant: str = "cold:Q4_1", **fields: Any) -> EngineReport:
    return an_engine(variant, state="absent", load_seconds=8.0, **fields)


def state_of(*engines: EngineReport, **report: Any) -> tuple[str | None, bool]:
    fleet = a_fleet("pi", report=a_report(*engines, name="pi", **report))
    [found] = [each for each in candidates(fleet) if each.engine is engines[0]]
    return found.unavailable, found.temporary


def test_an_absent_engine_is_worth_waiting_for() -> None:
    assert state_of(absent()) == (NOT_LOADED, True)


def test_one_that_loads_says_for_how_long() -> None:
    engine = an_engine(state="loading", load_seconds=8.0, progress=0.5)

    assert state_of(engine) == ("loading, about 4 s left", True)


def test_one_that_leaves_may_be_loaded_again() -> None:
    engine = an_engine(state="leaving", reason="cold needs its memory")

    assert state_of(engine) == ("leaving: cold needs its memory", True)


@pytest.mark.parametrize("name", ["cold", "cold:Q4_1"])
def test_a_model_that_its_node_forbids_is_not_waited_for(name: str) -> None:
    desired = (DesiredModel(model=name, forbidden=True),)
    why, temporary = state_of(absent(), desired=desired)

    assert why is not None
    assert "forbidden" in why
    assert not temporary


def test_what_only_pinned_engines_could_make_room_for_is_not_waited_for() -> None:
    pinned = an_engine("warm:Q4_1", pinned=True)
    why, temporary = state_of(absent(evicts=("warm:Q4_1",)), pinned)

    assert why is not None
    assert "pinned" in why
    assert not temporary


def test_no_engine_of_a_node_that_leaves_is_loaded() -> None:
    assert state_of(absent(), state="draining") == ("its node is shutting down", False)


def test_models_that_can_be_loaded_are_listed_with_the_slots_that_are_loaded() -> None:
    warm = an_engine("a:Q4_1", slots=2)
    report = a_report(warm, absent("a:Q8_0", slots=4), absent("b:Q8_0", slots=4))
    found = entries(catalog(candidates(a_fleet("pi", report=report))))

    assert {each.name: each.slots for each in found} == {
        "a": 2, "a:Q4_1": 2, "a:Q8_0": 4, "b": 4, "b:Q8_0": 4
    }  # fmt: skip


def test_without_a_name_what_is_loaded_is_meant() -> None:
    warm = a_candidate(engine=an_engine("warm:Q4_1"))
    cold = a_candidate(engine=absent("cold:Q4_1"))
    other = a_candidate(engine=absent("other:Q4_1"))

    assert able_to([warm, cold, other], a_request("")) == [warm]
    assert able_to([cold], a_request("")) == [cold]
    with pytest.raises(BadRequest, match="cold, other"):
        able_to([cold, other], a_request(""))


def test_absent_engines_are_no_capacity_that_could_replace_a_broken_one() -> None:
    breakers = CircuitBreakers()
    warm = a_candidate(engine=an_engine("small:Q4_1"))
    cold = a_candidate(engine=absent("small:Q8_0"))
    breakers.ranked([warm, cold])
    for _ in range(5):
        breakers.failed(warm.key, "engine")

    [judged, _] = breakers.ranked([warm, cold])

    assert judged.unavailable is None


def test_slots_that_are_held_while_an_engine_leaves_come_back() -> None:
    counts, there = SlotCounts(), a_candidate(engine=an_engine("cold:Q4_1"))
    counts.update([there])
    counts.take(there.key, 1)
    counts.update([a_candidate(engine=absent("cold:Q4_1"))])
    counts.give_back(there.key, 1)
    counts.update([there])

    assert counts.busy(there.key) == 0


def test_a_change_of_one_engine_leaves_the_others_the_same_objects() -> None:
    report = a_report(an_engine("warm:Q4_1"), absent(), name="pi")
    fleet, listed = a_fleet("pi", report=report), Candidates()
    warm, cold = listed.of(fleet)
    busy = an_engine("warm:Q4_1", busy=1)
    now_warm, now_cold = listed.of(fleet.engine_changed("pi", busy))

    assert (now_warm.engine, now_cold) == (busy, cold)
    assert now_cold is cold
    assert now_warm is not warm


def test_a_change_of_their_node_changes_all_of_them() -> None:
    fleet, listed = a_fleet("pi", report=a_report(absent(), name="pi")), Candidates()
    listed.of(fleet)
    [found] = listed.of(fleet.suspected("pi", "silent", 1.0))

    assert found.unavailable == "its node is suspect: silent"
