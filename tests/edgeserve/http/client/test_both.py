"""What both relays promise when they ask an upstream."""

from __future__ import annotations

import asyncio
from types import ModuleType

import pytest

from edgeserve.errors import NodeLost
from edgeserve.http import Origin, Request, Response, bind
from tests.edgeserve.http.both import both, relaying, serving
from tests.edgeserve.http.talk import (
    MIB,
    Client,
    a_request,
    answered,
    connected,
    in_chunks,
    server,
)
from tests.patience import PATIENCE

pytestmark = both
UNICODE = "data: žluťoučký 🦙 日本\n\n".encode()


@pytest.mark.parametrize("size", [0, 1, 1000, MIB])
async def test_bodies_pass_through_unchanged(kind: ModuleType, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    async with (
        serving(kind) as behind,
        kind.upstream(connect_seconds=30) as up,
        serving(kind, relaying(up, Origin("127.0.0.1", behind))) as port,
        connected(port) as client,
    ):
        client.post(body)
        got = await client.answer()

    assert got.body == body


async def test_characters_split_across_chunks_stay_whole(kind: ModuleType) -> None:
    pieces = [UNICODE[at : at + 3] for at in range(0, len(UNICODE), 3)]

    async def script(client: Client) -> None:
        await a_request(client)
        for byte in in_chunks(*pieces):
            client.say(bytes((byte,)))
            await client.writer.drain()

    seen: list[bytes] = []
    async with (
        server(script) as origin,
        kind.upstream(connect_seconds=30) as up,
        serving(kind, relaying(up, origin, seen)) as port,
        connected(port) as client,
    ):
        client.post(b"?")
        got = await client.answer()

    assert got.body == UNICODE
    assert b"".join(seen) == UNICODE


async def test_pieces_come_through_one_by_one(kind: ModuleType) -> None:
    step = asyncio.Event()

    async def script(client: Client) -> None:
        await a_request(client)
        client.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        await step.wait()
        client.say("3\r\ntwo\r\n0\r\n\r\n")

    async with (
        server(script) as origin,
        kind.upstream(connect_seconds=30) as up,
        serving(kind, relaying(up, origin)) as port,
        connected(port) as client,
    ):
        client.post()
        await client.head()
        first = await client.chunk()
        step.set()
        second = await client.chunk()
        last = await client.chunk()

    assert (first, second, last) == (b"one", b"two", b"")


async def test_a_client_that_leaves_ends_the_work(kind: ModuleType) -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def script(client: Client) -> None:
        await a_request(client)
        asked.set()
        await client.reader.read()
        left.set()

    async with (
        server(script) as origin,
        kind.upstream(connect_seconds=30) as up,
        serving(kind, relaying(up, origin)) as port,
        asyncio.timeout(PATIENCE),
    ):
        async with connected(port) as client:
            client.post()
            await asked.wait()
        await left.wait()


async def test_leaving_the_block_early_closes_the_connection(kind: ModuleType) -> None:
    left = asyncio.Event()

    async def script(client: Client) -> None:
        await a_request(client)
        client.say("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nonly")
        await client.reader.read()
        left.set()

    async with (
        server(script) as origin,
        kind.upstream(connect_seconds=30) as up,
        asyncio.timeout(PATIENCE),
    ):
        async with up.ask(origin, "POST", "/", {}) as answer:
            assert await answer.chunk() == b"only"
        await left.wait()


async def test_a_port_without_a_listener_is_a_lost_node(kind: ModuleType) -> None:
    with bind("127.0.0.1", 0) as sock:
        free = sock.getsockname()[1]
    async with kind.upstream(connect_seconds=30) as up:
        with pytest.raises(NodeLost, match="did not answer"):
            async with up.ask(Origin("127.0.0.1", free), "GET", "/", {}):
                pass


async def test_a_host_without_an_address_is_said_in_words(kind: ModuleType) -> None:
    async with kind.upstream(connect_seconds=30) as up:
        with pytest.raises(NodeLost, match="did not answer") as lost:
            async with up.ask(Origin("no-such-host.invalid", 80), "GET", "/", {}):
                pass
    assert "Errno" not in str(lost.value)


@pytest.mark.parametrize("said", ["", "HTTP/1.1 200 OK\r\nconte"])
async def test_hanging_up_before_the_head_is_a_lost_node(
    kind: ModuleType, said: str
) -> None:
    async def script(client: Client) -> None:
        await a_request(client)
        client.say(said)

    async with server(script) as origin, kind.upstream(connect_seconds=30) as up:
        with pytest.raises(NodeLost):
            async with up.ask(origin, "POST", "/", {}):
                pass


@pytest.mark.parametrize(
    "framing",
    [
        "content-length: 9\r\n\r\nonly",
        "transfer-encoding: chunked\r\n\r\n4\r\nonly\r\n",
    ],
)
@pytest.mark.parametrize("how", ["read", "chunk", "pump"])
async def test_a_body_cut_short_is_a_lost_node(
    kind: ModuleType, framing: str, how: str
) -> None:
    async def script(client: Client) -> None:
        await a_request(client)
        client.say(f"HTTP/1.1 200 OK\r\n{framing}")

    async def handler(_: Request, reply: Response) -> None:
        async with up.ask(origin, "POST", "/", {}) as answer:
            await reply.start(200, {})
            try:
                if how == "pump":
                    await answer.pump(reply, len)
                elif how == "read":
                    await answer.read()
                else:
                    while await answer.chunk():
                        pass
            except NodeLost:
                await reply.write(b"|lost")
            await reply.finish()

    async with (
        server(script) as origin,
        kind.upstream(connect_seconds=30) as up,
        serving(kind, handler) as port,
        connected(port) as client,
    ):
        client.post()
        got = await client.answer()

    assert got.body.endswith(b"|lost")


async def test_a_connection_is_used_again(kind: ModuleType) -> None:
    connections = 0

    async def script(client: Client) -> None:
        nonlocal connections
        connections += 1
        while True:
            client.say(answered(await a_request(client)))

    async with server(script) as origin, kind.upstream(connect_seconds=30) as up:
        for body in (b"one", b"two", b"three"):
            async with up.ask(origin, "POST", "/", {}, body) as answer:
                assert await answer.read() == body

    assert connections == 1


async def test_what_a_broken_answer_leaves_behind_is_not_used_again(
    kind: ModuleType,
) -> None:
    async def script(client: Client) -> None:
        body = await a_request(client)
        client.say(
            answered(body) + b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison"
        )
        await a_request(client)

    async with server(script) as origin, kind.upstream(connect_seconds=30) as up:
        for body in (b"first", b"second"):
            async with up.ask(origin, "POST", "/", {}, body) as answer:
                assert await answer.read() == body
