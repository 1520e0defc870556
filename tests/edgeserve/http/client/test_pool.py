"""How connections to upstreams are kept, given up and mistrusted."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from edgeserve.errors import NodeLost
from edgeserve.http import Origin, Request, Response, Upstream, upstream
from edgeserve.http.client import pool
from edgeserve.network import addresses
from tests.edgeserve.http.talk import (
    Client,
    a_request,
    answered,
    connected,
    server,
    serving,
    unseen,
)
from tests.patience import PATIENCE


async def echoing(client: Client) -> None:
    while True:
        client.say(answered(await a_request(client)))


async def whole(up: Upstream, origin: Origin, body: bytes = b"") -> bytes:
    """Ask, and read the answer's body."""
    async with up.ask(origin, "POST", "/", {}, body) as answer:
        return await answer.read()


async def test_a_stale_connection_is_replaced_without_an_error() -> None:
    """The server closes right after its answer, as one does whose patience ran out."""
    bodies: list[bytes] = []

    async def script(client: Client) -> None:
        bodies.append(await a_request(client))
        client.say(answered(bodies[-1]))
        await a_request(client)  # the second one is read, and the door is shut

    async with server(script) as origin, upstream(connect_seconds=30) as up:
        for body in (b"first", b"second"):
            assert await whole(up, origin, body) == body

    assert bodies == [b"first", b"second"]


async def test_a_fresh_connection_that_fails_is_not_tried_again() -> None:
    asked = 0

    async def script(client: Client) -> None:
        nonlocal asked
        asked += 1
        await a_request(client)

    async with server(script) as origin, upstream(connect_seconds=30) as up:
        with pytest.raises(NodeLost):
            await whole(up, origin)

    assert asked == 1


async def test_a_used_connection_that_fails_within_an_answer_is_not_stale() -> None:
    asked = 0

    async def script(client: Client) -> None:
        nonlocal asked
        client.say(answered(await a_request(client)))
        await a_request(client)
        asked += 1
        client.say("HTTP/1.1 100 Continue\r\n\r\n")

    async with server(script) as origin, upstream(connect_seconds=30) as up:
        await whole(up, origin)
        with pytest.raises(NodeLost):
            await whole(up, origin)

    assert asked == 1


async def test_a_connection_retires_before_the_server_counts_to_a_hundred() -> None:
    counts: list[int] = []

    async def script(client: Client) -> None:
        counts.append(0)
        while True:
            client.say(answered(await a_request(client)))
            counts[-1] += 1

    async with server(script) as origin, upstream(connect_seconds=30) as up:
        for _ in range(100):
            await whole(up, origin)

    assert counts == [90, 10]


async def test_an_idle_connection_is_closed_before_the_server_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "IDLE_SECONDS", 0.05)
    closed = asyncio.Event()

    async def script(client: Client) -> None:
        client.say(answered(await a_request(client)))
        assert await client.reader.read() == b""
        closed.set()

    async with server(script) as origin, upstream(connect_seconds=30) as up:
        await whole(up, origin)
        async with asyncio.timeout(PATIENCE):
            await closed.wait()


async def test_the_connection_used_last_is_used_first() -> None:
    order: list[int] = []

    async def script(client: Client) -> None:
        name = len(order)
        while True:
            body = await a_request(client)
            order.append(name)
            client.say(answered(body))

    async with server(script) as origin, upstream(connect_seconds=30) as up:
        async with up.ask(origin, "POST", "/", {}) as outer:
            await outer.read()
            await whole(up, origin)
        await whole(up, origin)

    assert order == [0, 1, 0]


async def test_a_server_that_does_not_accept_is_given_up_in_time() -> None:
    """A full backlog drops what knocks, as a machine does that went to sleep."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
        port = deaf.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
        async with upstream(connect_seconds=0.1) as up:
            with pytest.raises(NodeLost, match=r"within 0\.1 s"):
                await whole(up, Origin("127.0.0.1", port))
        for sock in waiting:
            sock.close()


def v6_addresses() -> list[str]:
    """Loopback, and a link-local address with its scope (`fe80::1%eth0`)."""
    scoped = [each for each in addresses() if each.startswith("fe80:")]
    return [*addresses(loopback=True) & {"::1"}, *scoped[:1]]


@pytest.mark.parametrize("host", v6_addresses())
async def test_ipv6_is_spoken_and_a_scope_stays_at_home(host: str) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answered(b"six"))
        writer.close()

    listener = await asyncio.start_server(serve, host, 0)
    port = listener.sockets[0].getsockname()[1]
    async with (
        listener,
        upstream(connect_seconds=30) as up,
        up.ask(Origin(host, port), "GET", "/", {}) as answer,
    ):
        assert await answer.read() == b"six"

    named = host.partition("%")[0]
    assert f"host: [{named}]:{port}\r\n".encode() in heads[0]


async def test_what_belongs_to_one_connection_is_not_passed_on() -> None:
    heads: list[bytes] = []

    async def script(client: Client) -> None:
        heads.append(await client.reader.readuntil(b"\r\n\r\n"))
        client.say(answered(b""))

    headers = {
        "host": "elsewhere",
        "connection": "x-mine, keep-alive",
        "x-mine": "1",
        "te": "trailers",
        "expect": "100-continue",
        "content-length": "99",
        "x-yours": "2",
    }
    async with (
        server(script) as origin,
        upstream(connect_seconds=30) as up,
        up.ask(origin, "GET", "/a?b", headers) as answer,
    ):
        await answer.read()

    host = f"host: 127.0.0.1:{origin.port}"
    assert heads[0].decode().split("\r\n")[:-2] == [
        "GET /a?b HTTP/1.1",
        host,
        "x-yours: 2",
    ]


async def test_a_thousand_aborted_requests_leave_nothing_behind() -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async def script(client: Client) -> None:
        await a_request(client)
        client.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        await client.reader.read()

    async with server(script) as origin, upstream(connect_seconds=30) as up:

        async def handler(request: Request, reply: Response) -> None:
            async with up.ask(origin, "POST", "/", {}, request.body) as answer:
                await reply.start(200, {})
                await answer.pump(reply, unseen)
                await reply.finish()

        async with serving(handler) as port:
            files, tasks = open_files(), len(asyncio.all_tasks())
            for turn in range(100):
                await asyncio.gather(*(abort(port, turn % 4) for _ in range(10)))
            async with asyncio.timeout(PATIENCE):
                while len(asyncio.all_tasks()) > tasks or open_files() > files:
                    await asyncio.sleep(0.01)


async def abort(port: int, moment: int) -> None:
    """Leave within the head, after the request, at the head, or within the stream."""
    async with connected(port) as client:
        if moment == 0:
            client.say("POST /v1/x HTTP/1.1\r\nHo")
            await client.writer.drain()
            return
        client.post(b"body")
        await client.writer.drain()
        if moment >= 2:
            await client.head()
        if moment == 3:
            await client.chunk()
