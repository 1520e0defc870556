from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from edgeserve import http
from edgeserve.errors import EdgeserveError, NodeLost
from edgeserve.http import Origin, Request, Response
from edgeserve.http.client.pool import Pool
from edgeserve.http.client.raw import raw_stream
from edgeserve.http.raw import UNREAD_BYTES, RawStream
from edgeserve.http.server.response import upgraded
from tests.patience import PATIENCE

Answering = Callable[[RawStream], Awaitable[None]]


class Full(EdgeserveError):
    """There is no room."""

    status = 409


@asynccontextmanager
async def serving(answer: Answering) -> AsyncGenerator[tuple[Pool, Origin]]:
    """Serve raw streams, and be a client of them."""

    async def handle(request: Request, reply: Response) -> None:
        if request.body == b"full":
            raise Full("no room for it")
        await answer(upgraded(reply))

    sock = http.bind("127.0.0.1", 0)
    async with (
        http.listen(sock, handle, lambda _: True, [], body_limit=100) as port,
        http.upstream(connect_seconds=PATIENCE) as ask,
        asyncio.timeout(PATIENCE),
    ):
        yield ask, Origin("127.0.0.1", port)


async def echo(stream: RawStream) -> None:
    while True:
        await stream.send(await stream.until(b"\n", 1000))


async def test_bytes_go_both_ways_after_the_answer() -> None:
    async with (
        serving(echo) as (ask, origin),
        raw_stream(ask, origin, "/raw", b"") as stream,
    ):
        stream.write(b"one\ntwo\n")
        said = [await stream.until(b"\n", 10) for _ in range(2)]

    assert said == [b"one\n", b"two\n"]


async def test_a_refusal_comes_with_its_sentence() -> None:
    async with serving(echo) as (ask, origin):
        with pytest.raises(NodeLost, match="no room for it"):
            async with raw_stream(ask, origin, "/raw", b"full"):
                pass


async def test_the_end_of_one_side_is_seen_by_the_other() -> None:
    ended = asyncio.Event()

    async def wait(stream: RawStream) -> None:
        try:
            await stream.over()
        finally:
            ended.set()

    async with serving(wait) as (ask, origin):
        async with raw_stream(ask, origin, "/raw", b""):
            pass
        await ended.wait()


async def test_a_line_without_an_end_is_not_collected_for_ever() -> None:
    async def chatter(stream: RawStream) -> None:
        stream.write(bytes(2000))
        await stream.over()

    async with (
        serving(chatter) as (ask, origin),
        raw_stream(ask, origin, "/raw", b"") as stream,
    ):
        with pytest.raises(ConnectionAbortedError):
            await stream.until(b"\n", 1000)


async def test_a_side_that_reads_nothing_slows_the_other_through_a_join() -> None:
    reading = asyncio.Event()
    received = 0

    async def slow(stream: RawStream) -> None:
        nonlocal received
        stream.stop()
        await reading.wait()
        stream.go()
        while True:
            await stream.exactly(1024)
            received += 1024

    size = 64 * UNREAD_BYTES
    async with serving(slow) as (ask, origin):

        async def lead(near: RawStream) -> None:
            async with raw_stream(ask, origin, "/raw", b"") as far:
                near.join(far)
                await near.over()

        async with (
            serving(lead) as (other, between),
            raw_stream(other, between, "/raw", b"") as stream,
        ):
            sending = asyncio.create_task(stream.send(bytes(size)))
            await asyncio.sleep(0.2)
            waited = not sending.done()
            reading.set()
            await sending
            while received < size:
                await asyncio.sleep(0.01)

    assert waited


async def test_a_side_that_is_full_before_a_join_slows_the_other_at_once() -> None:
    joined = asyncio.Event()

    async def slow(stream: RawStream) -> None:
        stream.stop()
        await stream.over()

    size = 64 * UNREAD_BYTES
    async with serving(slow) as (ask, origin):

        async def lead(near: RawStream) -> None:
            async with raw_stream(ask, origin, "/raw", b"") as far:
                far.write(bytes(size))
                near.join(far)
                joined.set()
                await near.over()

        async with (
            serving(lead) as (other, between),
            raw_stream(other, between, "/raw", b"") as stream,
        ):
            await joined.wait()
            sending = asyncio.create_task(stream.send(bytes(size)))
            await asyncio.sleep(0.2)
            waited = not sending.done()
            sending.cancel()

    assert waited
