"""Clients that wait in the queue while every slot is busy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from balancer import response
from tests.balancer.building import Holder, a_request
from tests.balancer.endpoint import CHAT, Endpoint, chat, endpoint
from tests.fakes.llama import Behaviour
from tests.fakes.node import fake_node
from tests.patience import PATIENCE


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response, "EVERY_SECONDS", 0.02)


@asynccontextmanager
async def full(seconds: float = PATIENCE) -> AsyncGenerator[tuple[Endpoint, Holder]]:
    """An endpoint whose only slot is taken."""
    async with (
        fake_node("pi", Behaviour(slots=1)) as node,
        endpoint(node, queue_seconds=seconds) as balancer,
        asyncio.timeout(PATIENCE),
    ):
        holder = await Holder(balancer.balancer.state.queue, a_request()).held()
        yield balancer, holder
        await holder.done()


def asked(*, stream: bool) -> bytes:
    return json.dumps(chat(stream=stream, max_tokens=2)).encode()


async def test_a_stream_that_waits_for_a_slot_shows_life_until_it_begins() -> None:
    async with (
        full() as (balancer, holder),
        balancer.session.post(CHAT, data=asked(stream=True)) as answer,
    ):
        first = await answer.content.readline()
        await holder.done()
        rest = await answer.read()

    assert answer.status == 200
    assert first == response.KEEP_ALIVE.splitlines(keepends=True)[0]
    assert b"w0" in rest
    assert rest.endswith(b"data: [DONE]\n\n")


async def test_a_stream_that_has_waited_in_vain_ends_with_an_error_event() -> None:
    async with (
        full(0.1) as (balancer, _),
        balancer.session.post(CHAT, data=asked(stream=True)) as answer,
    ):
        body = await answer.read()

    assert b"deadline_exceeded" in body.splitlines()[-2]


async def test_without_streaming_the_true_status_is_kept() -> None:
    async with (
        full(0.1) as (balancer, _),
        balancer.session.post(CHAT, data=asked(stream=False)) as answer,
    ):
        assert answer.status == 504
        assert (await answer.json())["error"]["code"] == "deadline_exceeded"
