"""Which nodes could be members, and how fast each is."""

from __future__ import annotations

import pytest

from balancer.fleet.engines import EngineCandidate, candidates
from balancer.fleet.slot_counts import SlotCounts
from balancer.groups.members import machines, splittable
from balancer.groups.pace import AS_EXPECTED, Pace, group_paces, paces
from balancer.prediction.fleet_model import FleetModel
from balancer.prediction.learning import speed_key
from balancer.prediction.prefix_cache import PrefixCacheIndex
from balancer.prediction.speed import Sample, expected_speed
from edgeserve.orders.groups import NodeLink
from edgeserve.wire import Expected
from tests.balancer.building import a_candidate
from tests.balancer.groups.test_planner import PC, a_member, fleet, with_group
from tests.fakes.reports import an_engine

SERVING = an_engine("small:Q4_1", expected=Expected(read=100.0, write=20.0))


def models() -> FleetModel:
    return FleetModel(PrefixCacheIndex(), SlotCounts())


def measured(each: EngineCandidate, known: FleetModel, rate: float) -> None:
    """Let an engine be seen to write so many tokens/s."""
    learner = known.speeds.learner(speed_key(each), expected_speed(each.engine))
    learner.begin(
        Sample(
            cached=0,
            prompt=100,
            prompt_ms=1000.0,
            predicted=50,
            predicted_ms=50_000 / rate,
        )
    )


def test_a_machine_that_nothing_was_measured_on_is_as_fast_as_it_expects() -> None:
    assert (
        paces([a_candidate("pi", SERVING)], models()).get("pi", AS_EXPECTED) == Pace()
    )


def test_a_machine_that_writes_at_half_the_expected_speed_counts_half() -> None:
    known, each = models(), a_candidate("pi", SERVING)
    measured(each, known, 10.0)

    pace = paces([each], known)["pi"]

    assert pace.writing == pytest.approx(0.5, rel=0.05)
    there = fleet(PC, a_member("pi"))
    [model] = splittable(there.nodes).values()
    half, whole = (
        {m.name: m.bytes_per_second for m in machines(there, model, each)}
        for each in ({"pi": pace}, {"pi": Pace()})
    )
    assert half["pi"] == pytest.approx(whole["pi"] / 2, rel=0.05)
    assert half["pc"] == whole["pc"]


def test_members_of_a_group_are_as_slow_as_the_group_was_measured() -> None:
    there = fleet(with_group("ready"), a_member("pi"))
    [group] = (each for each in candidates(there) if each.engine.group)
    known, links = (
        models(),
        {("pc", "pi"): NodeLink(round_trip=0.1, bytes_per_second=1e9)},
    )
    seconds = 2 * (10 * 10**9 + 10**9 / 4) / (10 * 10**9)  # twice what they expect
    measured(group, known, 1 / (seconds + 0.1))

    found = group_paces(there, [group], known, links)

    assert found.keys() == {"pc", "pi"}
    assert found["pi"].writing == pytest.approx(0.5, rel=0.05)


def test_only_nodes_with_the_file_can_be_heads() -> None:
    there = fleet(PC, a_member("pi"))
    [model] = splittable(there.nodes).values()

    assert {m.name: m.head for m in machines(there, model, {})} == {
        "pc": True,
        "pi": False,
    }


def test_machines_say_whether_their_speed_was_measured() -> None:
    there = fleet(PC, a_member("pi"))
    [model] = splittable(there.nodes).values()

    found = machines(there, model, {"pi": Pace(writing=0.5)})
    assert {each.name: each.measured for each in found} == {"pc": False, "pi": True}


def test_machines_can_be_named_and_left_out() -> None:
    there = fleet(PC, a_member("pi"), a_member("nuc"))
    [model] = splittable(there.nodes).values()

    only = machines(there, model, {}, only={"pc", "nuc"})
    without = machines(there, model, {}, avoided={"nuc"})

    assert {each.name for each in only} == {"pc", "nuc"}
    assert {each.name for each in without} == {"pc", "pi"}
