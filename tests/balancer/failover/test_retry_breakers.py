"""Nodes that fail attract nothing, are found out, and come back when they are well."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from balancer.failover import watchdog
from balancer.failover.stall import ExpectedPace
from edgeserve.errors import NodeLost
from tests.balancer.api.test_inference import said
from tests.balancer.endpoint import CHAT, QUICK, busy, chat, endpoint, eventually
from tests.fakes.llama import Behaviour
from tests.fakes.node import fake_node
from tests.patience import PATIENCE

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
        fake_node("a-bad") as bad,
        fake_node("b-well") as well,
        endpoint(bad, well) as balancer,
    ):
        health = balancer.balancer.state.breakers.health
        bad.refuse = NodeLost("the engine is gone")
        answers = [await balancer.post(CHAT, chat(max_tokens=1)) for _ in range(MANY)]
        asked = [each for each in bad.told if each.path == CHAT]

        bad.refuse = None
        await eventually(lambda: health(("a-bad", "small:Q4_1")).state == "ready")
        async with busy(balancer, 4, bad, well):
            pass
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


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a second or two be a long time."""
    monkeypatch.setattr("balancer.failover.stall.UNLEARNED_SECONDS", 1.5)
    monkeypatch.setattr("balancer.failover.stall.SHORTEST_SECONDS", 1.5)
    monkeypatch.setattr("balancer.failover.stall.GRACE_SECONDS", 0.2)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("stream", [True, False])
async def test_a_decode_that_hangs_is_found_by_what_does_not_come(stream: bool) -> None:
    async with (
        fake_node("a-hangs", Behaviour(fault="stall", fault_tokens=3)) as hangs,
        fake_node("b-well") as well,
        endpoint(hangs, well) as balancer,
    ):
        answer = await balancer.post(CHAT, chat(stream=stream))
        asked = len(hangs.told)
        await eventually(lambda: hangs.engine.busy == 0)

    text = said(answer.body) if stream else answer.text
    assert text == " ".join(f"w{number}" for number in range(16))
    assert asked == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_a_prompt_that_is_read_no_further_is_read_elsewhere(
    stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("balancer.failover.stall.HUNG_SECONDS", 1.0)
    monkeypatch.setattr(
        "balancer.failover.watchdog.UNLEARNED", ExpectedPace(token=1.0, batch=0.01)
    )
    async with (
        fake_node("a-hangs", Behaviour(prefill=1)) as hangs,
        fake_node("b-well") as well,
        endpoint(hangs, well) as balancer,
    ):
        asking = asyncio.create_task(balancer.post(CHAT, chat(stream=stream)))
        await eventually(lambda: hangs.llama.busy == 1)
        hangs.llama.freeze()
        answer = await asking

    assert answer.headers["x-edgeserve-node"] == "b-well"
    assert answer.headers["x-edgeserve-attempts"] == "2"


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("stream", [True, False])
async def test_an_engine_that_never_begins_is_left_for_one_that_is_idle(
    stream: bool,
) -> None:
    async with (
        fake_node("a-hangs", Behaviour(fault="hang")) as hangs,
        fake_node("b-well") as well,
        endpoint(hangs, well) as balancer,
    ):
        answer = await balancer.post(CHAT, chat(stream=stream))
        await eventually(lambda: hangs.engine.busy == 0)

    assert answer.status == 200
    assert answer.headers["x-edgeserve-node"] == "b-well"


@pytest.mark.usefixtures("impatient")
async def test_the_only_engine_is_left_its_time() -> None:
    async with (
        fake_node("pi", Behaviour(prefill=3)) as slow,
        endpoint(slow) as balancer,
    ):
        answer = await balancer.post(CHAT, chat(stream=True, max_tokens=1))

    assert answer.status == 200


async def test_an_engine_that_stays_failed_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("balancer.health.breaker.FAILED_SECONDS", 0.3)
    async with fake_node("pi") as node, endpoint(node) as balancer:
        node.say(state="failed", reason="it crashed")
        async with asyncio.timeout(PATIENCE):
            answer = await balancer.post(CHAT, chat())

    assert answer.status == 503
    assert "it crashed" in answer.error


@pytest.mark.parametrize("stream", [True, False])
async def test_what_waits_at_a_machine_that_freezes_is_answered_elsewhere(
    stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "QUIET_SECONDS", 0.3)
    monkeypatch.setattr(watchdog, "BLINK_SECONDS", 0.1)
    slow = Behaviour(decode=20)
    async with (
        fake_node("a-freezes", slow) as freezes,
        fake_node("b-well") as well,
        endpoint(freezes, well, pace=replace(QUICK, suspect=0.5)) as balancer,
    ):
        body = chat(max_tokens=12, stream=stream)
        asking = asyncio.create_task(balancer.post(CHAT, body))
        await eventually(lambda: freezes.llama.busy == 1)
        freezes.freeze()
        answer = await asking
        freezes.frozen = False

    assert answer.status == 200
    assert [each.path for each in well.told if each.path == CHAT] == [CHAT]
