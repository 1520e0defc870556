"""Requests whose only engine fails wait for its node to replace it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from balancer.response import KEEP_ALIVE
from tests.balancer.api.test_inference import said
from tests.balancer.endpoint import CHAT, Answered, Endpoint, chat, endpoint, eventually
from tests.balancer.failover.test_resume import words
from tests.fakes.llama import Behaviour
from tests.fakes.node import FakeNode, fake_node
from tests.patience import PATIENCE


@pytest.fixture(autouse=True)
def short_recovery(monkeypatch: pytest.MonkeyPatch, no_recovery: None) -> None:  # noqa: ARG001 - it comes before
    """Let a node take as long as it takes on this machine."""
    monkeypatch.setattr("balancer.failover.recovery.LOST_SECONDS", PATIENCE)
    monkeypatch.setattr("balancer.health.breaker.FAILED_SECONDS", PATIENCE)


@asynccontextmanager
async def only(**fault: Any) -> AsyncGenerator[tuple[Endpoint, FakeNode]]:
    """Run one node whose engine goes wrong."""
    async with fake_node("pi", Behaviour(**fault)) as node, endpoint(node) as balancer:
        yield balancer, node


async def fails(
    balancer: Endpoint, node: FakeNode, times: int = 1, **fields: Any
) -> asyncio.Task[Answered]:
    """Ask, and see the engine fail so many times, though its node has not said so."""
    asking = asyncio.create_task(balancer.post(CHAT, chat(**fields)))
    await eventually(lambda: len(node.told) == times and node.engine.busy == 0)
    return asking


def restarts(node: FakeNode) -> None:
    """Let the node tell how it starts its engine anew."""
    epoch = node.engine.epoch + 1
    node.say(state="failed", reason="it crashed")
    node.say(state="loading", epoch=epoch)
    node.say(state="ready", reason=None, epoch=epoch)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", ["reset", "close_after_head"])
async def test_the_only_engine_is_asked_again_once_it_has_restarted(
    fault: str, stream: bool
) -> None:
    async with only(fault=fault, fault_count=1) as (balancer, node):
        asking = await fails(balancer, node, stream=stream, max_tokens=3)
        restarts(node)
        answer = await asking

    assert answer.status == 200
    assert answer.headers["x-edgeserve-attempts"] == "2"
    assert (said(answer.body) if stream else answer.text) == words(3)


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_goes_on_where_it_broke_off_once_the_engine_is_back(
    stream: bool,
) -> None:
    async with only(fault="break", fault_tokens=3, fault_count=1) as (balancer, node):
        asking = await fails(balancer, node, stream=stream, max_tokens=40)
        restarts(node)
        answer = await asking
        asked = [each.body for each in node.llama.requests if "max_tokens" in each.body]

    assert (said(answer.body) if stream else answer.text) == words(16)
    assert [each["max_tokens"] for each in asked] == [40, 37]


async def test_an_engine_that_a_probe_shows_to_be_well_is_asked_again() -> None:
    async with only(fault="break", fault_tokens=3, fault_count=1) as (balancer, _):
        answer = await balancer.post(CHAT, chat(stream=True))

    assert said(answer.body) == words(16)


async def test_a_stream_that_waits_for_its_engine_shows_life(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("balancer.response.EVERY_SECONDS", 0.02)
    async with only(fault="break", fault_tokens=3, fault_count=1) as (balancer, node):
        asking = await fails(balancer, node, stream=True)
        await asyncio.sleep(0.2)
        restarts(node)
        answer = await asking

    assert KEEP_ALIVE in answer.body
    assert said(answer.body) == words(16)


async def test_an_engine_that_stays_away_is_unavailable_and_says_when_to_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with only(fault="reset") as (balancer, node):
        asking = await fails(balancer, node)
        monkeypatch.setattr("balancer.health.breaker.FAILED_SECONDS", 0.1)
        node.say(state="failed", reason="it crashed")
        answer = await asking

    assert answer.status == 503
    assert "retry-after" in answer.headers
    assert "it crashed" in answer.error


async def test_an_engine_that_dies_of_the_request_is_not_asked_for_ever() -> None:
    async with only(fault="reset") as (balancer, node):
        asking = await fails(balancer, node)
        for time in (2, 3):
            restarts(node)
            await eventually(lambda times=time: len(node.told) == times)  # type: ignore[misc]  # bound now
        answer = await asking

    assert answer.status == 502
    assert answer.headers["x-edgeserve-attempts"] == "3"


async def test_an_engine_that_does_not_start_anew_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("balancer.failover.recovery.LOST_SECONDS", 0.1)
    async with only(fault="reset") as (balancer, node):
        answer = await balancer.post(CHAT, chat())

    assert answer.status == 502
    assert len(node.told) == 1
