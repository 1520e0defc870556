"""What the limits of the fleet ask for: loads, unloads, or a remedy."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec

from balancer.fleet.engines import EngineCandidate
from balancer.lifecycle.placement import Load, Unload
from balancer.lifecycle.replicas.limits import ReplicaLimits
from balancer.lifecycle.replicas.wishes import (
    ReplicaWishes,
    forbidden,
    load_cost,
    wishes,
)
from edgeserve.orders.engines import DesiredModel
from edgeserve.wire import EngineState
from tests.balancer.building import a_candidate, a_fleet
from tests.fakes.reports import a_report, an_engine

FACTS = ("memory", "load_seconds", "pinned", "evicts")


def on(
    node: str, state: EngineState, variant: str = "small:Q4_1", **fields: Any
) -> EngineCandidate:
    facts = {key: fields.pop(key) for key in FACTS if key in fields}
    engine = msgspec.structs.replace(an_engine(variant, state=state, **fields), **facts)
    usable = state in {"ready", "busy"}
    why = None if usable else state
    return a_candidate(node, engine, unavailable=why, temporary=not usable)


def wished(
    *engines: EngineCandidate, small: ReplicaLimits, **others: ReplicaLimits
) -> ReplicaWishes:
    return wishes({"small": small, **others}, engines, {})


def nodes(found: tuple[Load | Unload, ...]) -> list[str]:
    return [each.to.node for each in found]


def test_a_minimum_is_reached_on_nodes_without_the_model_the_cheapest_first() -> None:
    found = wished(
        on("pi", "ready"),
        on("pi", "absent", "small:Q8_0"),
        on("nuc", "absent", load_seconds=9.0),
        on("box", "absent", load_seconds=3.0),
        on("far", "absent", load_seconds=1.0, evicts=("x",)),
        small=ReplicaLimits(min=3),
    )

    assert nodes(found.loads) == ["box", "nuc"]
    assert (found.unloads, found.problems) == ((), ())


def test_what_loads_already_counts() -> None:
    engines = on("pi", "loading"), on("nuc", "absent")

    assert wished(*engines, small=ReplicaLimits(min=1)) == ReplicaWishes()


def test_past_the_maximum_the_idlest_leave_but_none_that_is_pinned() -> None:
    found = wished(
        on("pi", "busy", busy=2),
        on("nuc", "ready", load_seconds=9.0),
        on("box", "ready", load_seconds=1.0),
        on("far", "ready", pinned=True),
        small=ReplicaLimits(max=2),
    )

    assert nodes(found.unloads) == ["box", "nuc"]
    assert not found.problems


def test_a_minimum_that_cannot_be_had_is_a_problem_with_a_remedy() -> None:
    found = wished(on("pi", "absent"), small=ReplicaLimits(min=2))

    assert nodes(found.loads) == ["pi"]
    (problem,) = found.problems
    assert (problem.model, problem.code) == ("small", "below_min")
    assert "only 1 can be: no other node has its file" in problem.reason
    assert "`edgeserve models limit small --min 1`" in problem.remedy


def test_pins_beyond_the_maximum_are_a_problem_with_a_remedy() -> None:
    pinned = [on(node, "ready", pinned=True) for node in ("pi", "nuc")]

    found = wished(*pinned, small=ReplicaLimits(max=1))

    (problem,) = found.problems
    assert (found.unloads, problem.code) == ((), "above_max")
    assert "pinned to nuc, pi" in problem.reason
    assert "--off" in problem.remedy


def test_two_minimums_in_one_memory_do_not_evict_each_other() -> None:
    found = wished(
        on("pi", "absent", evicts=("big:Q8_0",)),
        on("pi", "ready", "big:Q8_0"),
        small=ReplicaLimits(min=1),
        big=ReplicaLimits(min=1),
    )

    assert not found.loads
    (problem,) = found.problems
    assert problem.model == "small"
    assert "pi: there it would evict big, which has a minimum" in problem.reason


def test_a_node_that_must_not_load_it_is_left_out() -> None:
    report = msgspec.structs.replace(
        a_report(name="pi"), desired=(DesiredModel(model="small", forbidden=True),)
    )
    never = forbidden(a_fleet("pi", report=report).nodes)

    found = wishes({"small": ReplicaLimits(min=1)}, [on("pi", "absent")], never)

    assert not found.loads
    assert "pi: it is forbidden there" in found.problems[0].reason


def test_a_problem_says_why_each_node_cannot() -> None:
    broken = on("nuc", "quarantined")
    broken = dataclasses.replace(broken, temporary=False)

    found = wished(on("pi", "ready"), broken, small=ReplicaLimits(min=2))

    assert "nuc: quarantined" in found.problems[0].reason


def test_a_load_costs_what_has_to_leave_for_it() -> None:
    here = on("pi", "absent", load_seconds=4.0, evicts=("a:Q8_0",))
    others = (
        on("pi", "busy", "a:Q8_0", busy=2, load_seconds=6.0),
        on("nuc", "busy", "a:Q8_0", busy=1, load_seconds=7.0),
        here,
    )

    assert load_cost(here, others) == (2, 10.0)
