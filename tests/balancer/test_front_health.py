"""Nodes that fail attract nothing, are found out, and come back when they are well."""

from __future__ import annotations

import asyncio

import pytest

from edgeserve.errors import NodeLost
from tests.balancer.endpoint import CHAT, chat, endpoint, eventually
from tests.fakes.llama import Behaviour
from tests.fakes.node import fake_node

MANY = 25


@pytest.mark.parametrize("fault", ["reset", "error"])
async def test_an_engine_that_fails_fast_attracts_nothing(fault: str) -> None:
    async with (
        fake_node("a-bad", Behaviour(fault=fault)) as bad,  # type: ignore[arg-type]  # parametrized
        fake_node("b-well", Behaviour(decode=500)) as well,
        endpoint(bad, well) as balancer,
    ):
        answers = [await balancer.post(CHAT, chat(max_tokens=3)) for _ in range(MANY)]
        asked = [each for each in bad.told if each.path == CHAT]

    assert {answer.status for answer in answers} == {200}
    assert len(asked) <= 3


async def test_a_node_that_refuses_all_but_says_it_is_well_is_found_out() -> None:
    async with (
        fake_node("a-bad", Behaviour(decode=100)) as bad,
        fake_node("b-well", Behaviour(decode=100)) as well,
        endpoint(bad, well) as balancer,
    ):
        health = balancer.balancer.desk.breaker.health
        bad.refuse = NodeLost("the engine is gone")
        answers = [await balancer.post(CHAT, chat(max_tokens=1)) for _ in range(MANY)]
        asked = [each for each in bad.told if each.path == CHAT]

        bad.refuse = None
        await eventually(lambda: health(("a-bad", "small:Q4_1")).state == "ready")
        answers += await asyncio.gather(
            *(balancer.post(CHAT, chat(max_tokens=9)) for _ in range(4))
        )
        after = [each for each in bad.told if each.path == CHAT]

    assert {answer.status for answer in answers} == {200}
    assert len(asked) <= 3
    assert len(after) > len(asked)


async def test_the_only_engine_is_asked_whatever_has_become_of_it() -> None:
    async with fake_node("pi") as node, endpoint(node) as balancer:
        node.refuse = NodeLost("the engine is gone")
        for _ in range(4):
            assert (await balancer.post(CHAT, chat())).status == 502
        node.refuse = None

        assert (await balancer.post(CHAT, chat())).status == 200


async def test_requests_that_are_wrong_harm_no_engine() -> None:
    async with fake_node("pi") as node, endpoint(node) as balancer:
        for _ in range(5):
            assert (await balancer.post(CHAT, {"model": "small"})).status == 400
        nodes = (await balancer.get("/edgeserve/v1/nodes")).json

    assert nodes[0]["health"] == {}
