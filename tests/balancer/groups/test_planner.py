"""What is shown of groups: those that could be formed, and those that are over."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from balancer.fleet.engines import EngineCandidate, candidates
from balancer.fleet.members import Fleet
from balancer.fleet.slot_counts import SlotCounts
from balancer.groups.planner import GroupPlanner
from balancer.prediction.fleet_model import FleetModel
from balancer.prediction.prefix_cache import PrefixCacheIndex
from edgeserve.orders.groups import GroupCapacity, GroupMember, LayeredModel, group_id
from edgeserve.wire import AvailableModel, EngineReport, EngineState, NodeReport
from tests.balancer.building import a_fleet
from tests.fakes.reports import a_report, an_engine

GB = 10**9
LAYERED = LayeredModel(
    layers=10, layer_bytes=GB, rest_bytes=GB // 2, kv_bytes=1000, hidden_bytes=8192,
    context=8192,
)  # fmt: skip
BIG = AvailableModel(
    model="big", variant="big:Q4_1", file="big.gguf", reason="it does not fit",
    remedy="", layered=LAYERED,
)  # fmt: skip
GROUP = group_id("big:Q4_1")


def a_planner() -> GroupPlanner:
    models = FleetModel(PrefixCacheIndex(), SlotCounts())
    return GroupPlanner(models, automatic=True, clock=lambda: 0.0)


def a_member(name: str, *engines: EngineReport, **fields: Any) -> NodeReport:
    capacity = GroupCapacity(memory=7 * GB, bytes_per_second=10.0 * GB)
    return a_report(*engines, name=name, rpc="7.0.0", capacity=capacity, **fields)


def fleet(*reports: NodeReport) -> Fleet:
    found = Fleet()
    for each in reports:
        one = a_fleet(each.name, report=each)
        found = Fleet({**found.addresses, **one.addresses})
    return found


def a_group(state: EngineState, lost: str = "") -> EngineReport:
    """A group of `pc` and `pi`, which may have lost a member."""
    members = tuple(
        GroupMember(
            node=name,
            name=name,
            share=0.5,
            head=name == "pc",
            state="lost" if name == lost else "up",
        )
        for name in ("pc", "pi")
    )
    return an_engine("big:Q4_1", id=GROUP, state=state, group=members, layered=LAYERED)


def shown(planner: GroupPlanner, there: Fleet) -> list[EngineCandidate]:
    reported = candidates(there)
    planner.refresh(there, reported)
    planner.grouped(there, reported)  # it hears of losses
    planner.refresh(there, reported, now=True)
    found = planner.grouped(there, reported)
    return [each for each in found if each.engine.id == GROUP]


PC = a_member("pc", available=(BIG,))


def with_group(state: EngineState, lost: str = "") -> NodeReport:
    return a_member("pc", a_group(state, lost), available=(BIG,))


def test_a_group_that_could_be_formed_is_an_absent_engine_of_its_head() -> None:
    [each] = shown(a_planner(), fleet(PC, a_member("pi")))

    assert (each.node, each.engine.state, each.temporary) == ("pc", "absent", True)
    assert [m.name for m in each.engine.group] == ["pc", "pi"]
    assert each.engine.expected is not None


def test_a_group_that_serves_is_shown_as_it_is() -> None:
    [each] = shown(a_planner(), fleet(with_group("ready"), a_member("pi")))

    assert each.engine.state == "ready"


def test_a_group_without_a_member_gives_way_to_another() -> None:
    there = fleet(with_group("failed", "pi"), a_member("pi"), a_member("nuc"))
    [each] = shown(a_planner(), there)

    assert each.engine.state == "absent"
    assert {m.name for m in each.engine.group} == {"pc", "nuc"}


def test_a_group_whose_head_has_left_gives_way_to_one_with_another_head() -> None:
    nuc = a_member("nuc", available=(BIG,))
    there = fleet(with_group("ready"), a_member("pi"), nuc)
    there = there.missed("pc", "it does not answer", 0.0)
    [each] = shown(a_planner(), there)

    assert (each.node, each.engine.state) == ("nuc", "absent")
    assert {m.name for m in each.engine.group} == {"nuc", "pi"}


def test_a_group_whose_member_may_be_back_is_waited_for() -> None:
    there = fleet(with_group("failed", "pi"), a_member("pi"))
    [each] = shown(a_planner(), there)

    assert (each.engine.state, each.temporary) == ("failed", True)


def test_a_member_that_was_lost_is_taken_again_where_no_group_waits_for_it() -> None:
    planner = a_planner()
    shown(planner, fleet(with_group("failed", "pi"), a_member("pi")))
    [each] = shown(planner, fleet(PC, a_member("pi")))

    assert each.temporary
    assert {m.name for m in each.engine.group} == {"pc", "pi"}


def test_a_group_whose_member_has_left_is_refused_with_the_arithmetic() -> None:
    there = fleet(with_group("failed", "pi"), a_member("pi"))
    there = there.missed("pi", "it does not answer", 0.0)
    [each] = shown(a_planner(), there)

    assert not each.temporary
    assert "another machine that is up" in (each.unavailable or "")


@pytest.mark.parametrize(
    "fields",
    [{"rpc": ""}, {"rpc": "6.0.0"}, {"capacity": None}],
    ids=["without RPC", "another RPC", "no capacity"],
)
def test_only_machines_that_can_work_together_are_members(fields: Any) -> None:
    pi = msgspec.structs.replace(a_member("pi"), **fields)
    [each] = shown(a_planner(), fleet(PC, pi))

    assert each.unavailable
    assert not each.temporary


def test_a_model_that_fits_somewhere_needs_no_group() -> None:
    nuc = a_member("nuc", an_engine("big:Q4_1", state="absent"))

    assert shown(a_planner(), fleet(PC, a_member("pi"), nuc)) == []
