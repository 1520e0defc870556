from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from balancer.energy.sleep import AwakeMachine, needed, to_sleep
from balancer.fleet.members import Node
from edgeserve.orders.groups import WorkerReport
from edgeserve.reports.sleep import Sleep
from tests.balancer.building import a_candidate, a_fleet
from tests.fakes.reports import a_report, an_engine

AFTER = 900.0


def idle(name: str = "pi", **changes: Any) -> AwakeMachine:
    usual: dict[str, Any] = {
        "id": name,
        "name": name,
        "idle": 1000.0,
        "awake": 5000.0,
        "boot": 20.0,
    }
    return AwakeMachine(**usual | changes)


def a_node(**fields: Any) -> Node:
    report = a_report(an_engine(), name="pi", sleep=Sleep(how="suspend"))
    (node,) = a_fleet("pi", report=structs.replace(report, **fields)).nodes
    return node


def test_the_machine_that_takes_most_goes_first() -> None:
    found = to_sleep([idle("pi", watts=3.0), idle("gpu", watts=60.0)], AFTER)

    assert found is not None
    assert found.name == "gpu"


@pytest.mark.parametrize(
    "why",
    [
        {"needed": "ada used tty1 5 s ago"},
        {"idle": 800.0},
        {"awake": 890.0},
        {"boot": 600.0},
    ],
)
def test_what_is_needed_or_has_just_come_up_stays(why: dict[str, Any]) -> None:
    assert to_sleep([idle(**why)], AFTER) is None


def test_with_zero_seconds_nothing_ever_sleeps() -> None:
    assert to_sleep([idle()], 0.0) is None


def free(_: str) -> int:
    return 0


def test_a_node_that_says_nothing_of_sleep_is_never_asked() -> None:
    assert "not allowed" in needed(a_node(sleep=None), [], free)


def test_an_idle_node_is_not_needed_even_if_it_alone_has_a_model() -> None:
    assert needed(a_node(), [a_candidate()], free) == ""


def test_who_uses_a_machine_and_what_works_there_keep_it_awake() -> None:
    use = Sleep(how="suspend", in_use="ada used tty1 5 s ago")
    work = WorkerReport(head="n", variant="large:Q4_0", memory=1)
    busy = (an_engine(state="busy", busy=1),)

    assert needed(a_node(sleep=use), [], free) == use.in_use
    assert "several machines" in needed(a_node(workers=(work,)), [], free)
    assert "answers" in needed(a_node(engines=busy), [], free)


def test_a_model_keeps_as_many_replicas_awake_as_it_must_have() -> None:
    node, here = a_node(), a_candidate("pi")
    there = a_candidate("nuc")

    assert "replicas" in needed(node, [here], lambda _: 1)
    assert needed(node, [here, there], lambda _: 1) == ""
    assert "replicas" in needed(node, [here, there], lambda _: 2)
