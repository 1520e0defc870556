"""A model that fits on no machine is served by several, once it is asked for."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from balancer.groups import planner
from balancer.groups.history import MOST_FORMED
from balancer.lifecycle import orders
from edgeserve.orders.groups import NodeLink
from tests.balancer.endpoint import Answered, Endpoint, eventually
from tests.balancer.lifecycle.groups.fleets import GROUP, able, ask, fleet
from tests.fakes.reports import an_engine


async def test_a_request_has_a_group_formed_and_is_answered() -> None:
    async with fleet("pi") as (balancer, pc):
        answer = await ask(balancer)

    assert answer.status == 200
    [order] = pc.groups.formed
    assert [each.name for each in order.workers] == ["pi"]
    assert order.share + order.workers[0].share == 1
    assert order.workers[0].urls


async def test_many_requests_form_one_group() -> None:
    async with fleet("pi") as (balancer, pc):
        answers = await asyncio.gather(*(ask(balancer) for _ in range(20)))

    assert [each.status for each in answers] == [200] * 20
    assert len(pc.groups.formed) == 1


async def test_links_are_measured_once_before_the_first_group() -> None:
    async with fleet("pi", "nuc") as (balancer, pc):
        await ask(balancer)
        pc.groups.end("big:Q4_1")
        await ask(balancer)

    assert {each.node for each in pc.groups.measured} == {"pi", "nuc"}
    assert len(pc.groups.measured) == 2
    assert len(pc.groups.formed) == 2


async def test_the_machine_with_the_better_link_takes_part() -> None:
    async with fleet("wifi", "wire") as (balancer, pc):
        slow = NodeLink(round_trip=0.05, bytes_per_second=1e6, wired=False)
        pc.groups.links["wifi"] = slow
        await ask(balancer)

    [order] = pc.groups.formed
    assert [each.name for each in order.workers] == ["wire"]


async def test_a_machine_that_the_head_cannot_reach_takes_no_part() -> None:
    async with fleet("away", "pi") as (balancer, pc):
        pc.groups.links["away"] = None
        answer = await ask(balancer)

    assert answer.status == 200
    assert [each.name for each in pc.groups.formed[0].workers] == ["pi"]


async def test_what_no_group_holds_is_refused_with_the_arithmetic() -> None:
    async with fleet(head=able(3)) as (balancer, pc):
        alone = await ask(balancer)
    async with fleet("pi", head=able(3)) as (balancer, pc):
        two = await ask(balancer)

    assert (alone.status, two.status) == (503, 503)
    assert "another machine" in alone.error
    assert "it needs 12.1 GB" in two.error
    assert "the 2 machines that can take part have 10.0 GB free" in two.error
    assert "pc 3 GB, pi 7 GB" in two.error
    assert pc.groups.formed == []


async def test_a_lost_member_is_left_out_of_the_next_group() -> None:
    async with fleet("pi", "nuc") as (balancer, pc):
        await ask(balancer)
        [first] = pc.groups.formed
        pc.groups.lose("big:Q4_1", first.workers[0].node)
        answer = await ask(balancer)

    second = pc.groups.formed[1]
    assert answer.status == 200
    assert first.workers[0].name != second.workers[0].name


async def test_without_another_machine_requests_wait_until_the_head_has_it_back() -> (
    None
):
    async with fleet("pi") as (balancer, pc):
        await ask(balancer)
        pc.groups.lose("big:Q4_1", "pi")
        asking = asyncio.ensure_future(ask(balancer))
        await eventually(lambda: balancer.balancer.state.queue.waiting == 1)
        pc.groups.again("big:Q4_1")
        answer = await asking

    assert answer.status == 200
    assert len(pc.groups.formed) == 1


async def test_a_group_that_is_lost_again_and_again_is_left_alone() -> None:
    async with fleet("pi") as (balancer, pc):
        answers = list[Answered]()
        for _ in range(5):
            answers.append(await ask(balancer))
            if pc.find(GROUP):
                pc.groups.end("big:Q4_1")
            await gone(balancer)

    assert [each.status for each in answers] == [200] * 4 + [503]
    assert "formed 4 times in 10 minutes" in answers[-1].error


async def test_orders_that_a_busy_head_does_not_take_are_no_groups_that_were_formed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(orders, "LATER_SECONDS", 0.01)
    monkeypatch.setattr(orders, "MOST_SECONDS", 0)
    async with fleet("pi") as (balancer, pc):
        pc.groups.refuses, pc.groups.code = "its engines are busy", "engines_busy"
        asking = asyncio.ensure_future(ask(balancer))
        await eventually(lambda: len(pc.groups.formed) > MOST_FORMED)
        pc.groups.refuses = ""
        answer = await asking

    assert answer.status == 200


async def gone(balancer: Endpoint) -> None:
    """Wait until the balancer has heard that there is no group."""
    current = balancer.balancer.state.current
    await eventually(
        lambda: not any(
            e.group and e.state != "absent" for n in current.fleet.nodes
            for e in n.report.engines
        )
    )  # fmt: skip


async def test_a_head_that_refuses_is_quoted() -> None:
    async with fleet("pi") as (balancer, pc):
        pc.groups.refuses = "pi has no room"
        answer = await ask(balancer)

    assert answer.status == 503
    assert "pi has no room" in answer.error


async def test_a_smaller_variant_on_one_machine_is_used_instead() -> None:
    small = an_engine("big:Q2_K", state="absent", load_seconds=0.1)
    async with fleet("pi", engine=small) as (balancer, pc):
        answer = await ask(balancer)

    assert answer.status == 200
    assert pc.loads.loads == ["big:Q2_K"]
    assert pc.groups.formed == []


async def test_groups_that_are_off_are_not_formed_by_requests() -> None:
    async with fleet("pi", groups="off") as (balancer, pc):
        answer = await ask(balancer)

    assert answer.status == 404
    assert pc.groups.formed == []


async def test_a_model_that_a_group_could_serve_is_listed() -> None:
    async with fleet("pi") as (balancer, _):
        listed = (await balancer.get("/v1/models")).json["data"]

    assert {each["id"]: each["state"] for each in listed}["big"] == "available"


async def test_a_model_that_fits_somewhere_is_no_group() -> None:
    other = an_engine("big:Q4_1", state="absent", load_seconds=0.1)
    async with fleet("pi", engine=other, groups="off") as (balancer, pc):
        answer = await ask(balancer)

    assert answer.status == 200
    assert pc.groups.formed == []


async def test_free_memory_that_moves_changes_no_plan_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(planner, "PLAN_SECONDS", 3600)
    async with fleet("pi") as (balancer, pc):
        current, groups = (
            balancer.balancer.state.current,
            balancer.balancer.state.groups,
        )
        pc.say(msgspec.structs.replace(pc.report, **able(8)))
        await balancer.until(lambda fleet: fleet.nodes[0].report == pc.report)
        groups.refresh(current.fleet, current.candidates, now=True)
        [before] = groups.possible
        pc.say(msgspec.structs.replace(pc.report, **able(6)))
        await balancer.until(lambda fleet: fleet.nodes[0].report == pc.report)
        at_once = groups.refresh(current.fleet, current.candidates)
        [after] = groups.possible
        later = groups.refresh(current.fleet, current.candidates, now=True)

    assert after is before
    assert (at_once, later) == (False, True)
