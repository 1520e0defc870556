"""How answers of upstreams are read, watched and passed on."""

from __future__ import annotations

import asyncio

import pytest

from edgeserve.errors import NodeLost
from edgeserve.http import Origin, Request, Response, Upstream, upstream
from tests.edgeserve.http.talk import (
    MIB,
    Client,
    a_request,
    answered,
    connected,
    in_chunks,
    server,
    serving,
    unseen,
)


async def whole(up: Upstream, origin: Origin, body: bytes = b"") -> bytes:
    """Ask, and read the answer's body."""
    async with up.ask(origin, "POST", "/", {}, body) as answer:
        return await answer.read()


@pytest.mark.parametrize(
    "said",
    [
        "nonsense\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\n b: c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad name: a\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: " + "x" * 70_000,
    ],
)
async def test_an_answer_that_is_not_http_is_a_lost_node(said: str) -> None:
    async def script(client: Client) -> None:
        await a_request(client)
        client.say(said)
        await client.reader.read()

    async with server(script) as origin, upstream(connect_seconds=30) as up:
        with pytest.raises(NodeLost, match="broke the protocol"):
            await whole(up, origin)


async def test_a_broken_chunk_is_a_lost_node() -> None:
    async def broken(client: Client) -> None:
        await a_request(client)
        client.say(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ntoo long\r\n"
        )
        await client.reader.read()

    async with (
        server(broken) as origin,
        upstream(connect_seconds=30) as up,
        up.ask(origin, "POST", "/", {}) as answer,
    ):
        with pytest.raises(NodeLost, match="broke the protocol"):
            await answer.read()


async def test_a_body_may_end_with_its_connection() -> None:
    async def script(client: Client) -> None:
        await a_request(client)
        client.say("HTTP/1.0 200 OK\r\n\r\nto the end")

    async with (
        server(script) as origin,
        upstream(connect_seconds=30) as up,
        up.ask(origin, "POST", "/", {}) as answer,
    ):
        assert await answer.read() == b"to the end"


async def test_an_interim_answer_is_not_the_answer() -> None:
    async def script(client: Client) -> None:
        await a_request(client)
        client.say(b"HTTP/1.1 100 Continue\r\n\r\n" + answered(b"real"))

    async with (
        server(script) as origin,
        upstream(connect_seconds=30) as up,
        up.ask(origin, "POST", "/", {}) as answer,
    ):
        assert (answer.status, await answer.read()) == (200, b"real")


async def test_an_error_in_an_observer_is_raised_where_the_stream_is_pumped() -> None:
    def observe(_: bytes) -> None:
        raise ValueError("cannot read this event")

    async def script(client: Client) -> None:
        await a_request(client)
        client.say(in_chunks(b"an event"))

    raised: list[Exception] = []
    async with server(script) as origin, upstream(connect_seconds=30) as up:

        async def handler(_: Request, reply: Response) -> None:
            async with up.ask(origin, "POST", "/", {}) as answer:
                await reply.start(200, {})
                try:
                    await answer.pump(reply, observe)
                except ValueError as error:
                    raised.append(error)
                await reply.finish()

        async with serving(handler) as port, connected(port) as client:
            client.post()
            await client.answer()

    assert [str(each) for each in raised] == ["cannot read this event"]


async def test_what_a_filter_returns_is_what_the_client_gets() -> None:
    async def script(client: Client) -> None:
        await a_request(client)
        client.say(in_chunks(b"some", b"none", b"more"))

    async with server(script) as origin, upstream(connect_seconds=30) as up:

        async def handler(_: Request, reply: Response) -> None:
            async with up.ask(origin, "POST", "/", {}) as answer:
                await reply.start(200, {})
                await answer.pump_filtered(
                    reply, lambda piece: piece.replace(b"none", b"").upper()
                )
                await reply.finish()

        async with serving(handler) as port, connected(port) as client:
            client.post()
            got = await client.answer()

    assert got.body == b"SOMEMORE"


async def test_a_stream_may_be_read_for_a_while_and_then_pumped() -> None:
    """This is what resuming needs: look at the first pieces, then let them flow."""
    more = asyncio.Event()

    async def script(client: Client) -> None:
        await a_request(client)
        client.say(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n6\r\ntwo"
        )
        await more.wait()
        client.say("owt\r\n5\r\nthree\r\n0\r\n\r\n")

    async with server(script) as origin, upstream(connect_seconds=30) as up:

        async def handler(_: Request, reply: Response) -> None:
            async with up.ask(origin, "POST", "/", {}) as answer:
                first = await answer.chunk()
                await reply.start(200, {})
                await reply.write(first.upper())
                more.set()
                await answer.pump(reply, unseen)
                await reply.finish()

        async with serving(handler) as port, connected(port) as client:
            client.post()
            got = await client.answer()

    assert got.body in (b"ONETWOowtthree", b"ONEtwoowtthree")


async def test_an_answer_that_is_not_read_is_held_back() -> None:
    sent = 0

    async def script(client: Client) -> None:
        nonlocal sent
        await a_request(client)
        client.say(f"HTTP/1.1 200 OK\r\ncontent-length: {64 * MIB}\r\n\r\n")
        for _ in range(64):
            client.say(b"x" * MIB)
            await client.writer.drain()
            sent += 1

    async with (
        server(script) as origin,
        upstream(connect_seconds=30) as up,
        up.ask(origin, "POST", "/", {}) as answer,
    ):
        await asyncio.sleep(0.1)
        held_at = sent
        body = await answer.read()

    assert held_at < 32
    assert len(body) == 64 * MIB
