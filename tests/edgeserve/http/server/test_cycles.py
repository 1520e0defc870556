"""Connections to upstreams leave no reference cycle, however they end."""

from __future__ import annotations

import asyncio

import pytest

from edgeserve.errors import NodeLost
from edgeserve.http import Limits, Origin, upstream
from edgeserve.http.client.pool import MOST_USES, Pool
from edgeserve.http.server.limits import PASSED_BYTES, BodyMemory
from tests.edgeserve.http.cycles import collected
from tests.edgeserve.http.talk import Client, a_request, answered, server


async def echoing(client: Client) -> None:
    while True:
        client.say(answered(await a_request(client)))


async def falling_silent(client: Client) -> None:
    await a_request(client)
    client.say("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nabc")
    await client.writer.drain()


async def asked(up: Pool, origin: Origin) -> None:
    async with up.ask(origin, "POST", "/", {}, b"x" * 60_000) as answer:
        await answer.read()


async def test_a_connection_that_retires_leaves_nothing() -> None:
    async with server(echoing) as origin, upstream(connect_seconds=30) as up:
        await asked(up, origin)
        with collected() as found:
            for _ in range(2 * MOST_USES):
                await asked(up, origin)
            await asyncio.sleep(0.01)

    assert found == []


async def test_a_connection_that_breaks_leaves_nothing() -> None:
    async with server(falling_silent) as origin, upstream(connect_seconds=30) as up:
        with collected() as found:
            for _ in range(3):
                with pytest.raises(NodeLost):
                    await asked(up, origin)
            await asyncio.sleep(0.01)

    assert found == []


async def test_a_connection_that_is_left_leaves_nothing() -> None:
    async with server(falling_silent) as origin, upstream(connect_seconds=30) as up:
        with collected() as found:
            for _ in range(3):
                async with up.ask(origin, "POST", "/", {}, b"x" * 60_000) as answer:
                    assert await answer.chunk() == b"abc"
            await asyncio.sleep(0.01)

    assert found == []


def test_after_many_large_bodies_their_memory_is_given_back() -> None:
    calls: list[int] = []
    room = BodyMemory(Limits())
    room.on_relief = lambda: calls.append(room.held)
    for _ in range(3):
        room.begin(PASSED_BYTES)
    for _ in range(3):
        room.end(PASSED_BYTES)
    for _ in range(100):
        room.begin(1000)
        room.end(1000)

    assert calls == [0]
