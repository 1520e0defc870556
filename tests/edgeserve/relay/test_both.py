"""What the fast relay and the plain one promise alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import ModuleType

import pytest
from aiohttp import web

import edgeserve.relay as fast
from edgeserve.errors import FleetBusy, NodeLost
from edgeserve.relay import Handler, Origin, Reply, Request, Upstream, bound, plain
from tests.edgeserve.relay.talk import (
    MIB,
    PATIENCE,
    Client,
    a_request,
    answered,
    connected,
    echo,
    in_chunks,
    is_ours,
    server,
)

pytestmark = pytest.mark.parametrize(
    "kind", [pytest.param(fast, id="fast"), pytest.param(plain, id="plain")]
)

UNICODE = "data: žluťoučký 🦙 日本\n\n".encode()


@asynccontextmanager
async def serving(kind: ModuleType, handler: Handler = echo) -> AsyncGenerator[int]:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="a page")

    async with kind.listen(
        bound("127.0.0.1", 0), handler, is_ours, [web.get("/ui", page)], body_limit=MIB
    ) as port:
        yield port


def relaying(up: Upstream, origin: Origin, seen: list[bytes] | None = None) -> Handler:
    """A handler that passes everything on, streaming."""

    async def handler(request: Request, reply: Reply) -> None:
        async with up.ask(
            origin, request.method, request.target, request.headers, request.body
        ) as answer:
            await reply.start(answer.status, answer.headers)
            await answer.pump(reply, (seen if seen is not None else []).append)
            await reply.finish()

    return handler


async def test_a_request_arrives_as_it_was_sent(kind: ModuleType) -> None:
    came: list[Request] = []

    async def handler(request: Request, reply: Reply) -> None:
        came.append(request)
        await reply.send(204, {}, b"")

    async with serving(kind, handler) as port, connected(port) as client:
        client.post(b"\x00\xff body", "/v1/a?b=c&d", "X-Odd: \xfcber\r\n")
        got = await client.answer()

    assert got.status == 204
    [request] = came
    assert (request.method, request.target) == ("POST", "/v1/a?b=c&d")
    assert request.body == b"\x00\xff body"
    assert request.headers["x-odd"] == "über"
    assert request.peer == "127.0.0.1"


async def test_an_answer_arrives_as_it_was_sent(kind: ModuleType) -> None:
    async def handler(_: Request, reply: Reply) -> None:
        await reply.send(418, {"x-kind": "teapot", "connection": "nonsense"}, b"tea")

    async with serving(kind, handler) as port, connected(port) as client:
        client.post()
        got = await client.answer()

    assert (got.status, got.body) == (418, b"tea")
    assert got.headers["x-kind"] == "teapot"
    assert "nonsense" not in got.headers.values()


async def test_pages_are_served_beside_the_relay(kind: ModuleType) -> None:
    async with serving(kind) as port, connected(port) as client:
        client.say("GET /ui HTTP/1.1\r\nHost: a\r\n\r\n")
        page = await client.answer()
        client.post(b"and back", "/v1/x")
        echoed = await client.answer()

    assert page.body == b"a page"
    assert echoed.body == b"and back"


async def test_an_unknown_path_gets_an_error_of_ours(kind: ModuleType) -> None:
    async with serving(kind) as port, connected(port) as client:
        client.say("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n")
        got = await client.answer()

    assert got.status == 404
    assert b'"code": "not_found"' in got.body


async def test_an_error_of_ours_becomes_its_own_answer(kind: ModuleType) -> None:
    async def handler(_: Request, __: Reply) -> None:
        raise FleetBusy(retry_after=3)

    async with serving(kind, handler) as port, connected(port) as client:
        client.post()
        got = await client.answer()

    assert got.status == 429
    assert got.headers["retry-after"] == "3"


async def test_a_body_past_the_limit_is_refused(kind: ModuleType) -> None:
    async with serving(kind) as port, connected(port) as client:
        client.post(b"x" * (MIB + 1))
        got = await client.answer()

    assert got.status == 413


async def test_a_head_request_is_answered_without_a_body(kind: ModuleType) -> None:
    async with serving(kind) as port, connected(port) as client:
        client.say("HEAD /v1/x HTTP/1.1\r\nHost: a\r\n\r\n")
        got = await client.answer(mute=True)
        client.post(b"next")
        after = await client.answer()

    assert got.status == 200
    assert after.body == b"next"


@pytest.mark.parametrize("size", [0, 1, 1000, MIB])
async def test_bodies_pass_through_unchanged(kind: ModuleType, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    async with (
        serving(kind) as behind,
        kind.upstream(connect_seconds=1) as up,
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
        kind.upstream(connect_seconds=1) as up,
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
        kind.upstream(connect_seconds=1) as up,
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
        kind.upstream(connect_seconds=1) as up,
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
        kind.upstream(connect_seconds=1) as up,
        asyncio.timeout(PATIENCE),
    ):
        async with up.ask(origin, "POST", "/", {}) as answer:
            assert await answer.chunk() == b"only"
        await left.wait()


async def test_nobody_listening_is_a_lost_node(kind: ModuleType) -> None:
    with bound("127.0.0.1", 0) as sock:
        free = sock.getsockname()[1]
    async with kind.upstream(connect_seconds=1) as up:
        with pytest.raises(NodeLost, match="did not answer"):
            async with up.ask(Origin("127.0.0.1", free), "GET", "/", {}):
                pass


@pytest.mark.parametrize("said", ["", "HTTP/1.1 200 OK\r\nconte"])
async def test_hanging_up_before_the_head_is_a_lost_node(
    kind: ModuleType, said: str
) -> None:
    async def script(client: Client) -> None:
        await a_request(client)
        client.say(said)

    async with server(script) as origin, kind.upstream(connect_seconds=1) as up:
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

    async def handler(_: Request, reply: Reply) -> None:
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
        kind.upstream(connect_seconds=1) as up,
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

    async with server(script) as origin, kind.upstream(connect_seconds=1) as up:
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

    async with server(script) as origin, kind.upstream(connect_seconds=1) as up:
        for body in (b"first", b"second"):
            async with up.ask(origin, "POST", "/", {}, body) as answer:
                assert await answer.read() == body
