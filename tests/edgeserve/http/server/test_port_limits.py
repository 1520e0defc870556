"""What one client may not do to the others."""

from __future__ import annotations

import asyncio
import socket

import pytest

from edgeserve.http import Limits, Request, Response, upstream
from tests.edgeserve.http.talk import (
    MIB,
    Client,
    a_request,
    connected,
    server,
    serving,
    unseen,
)
from tests.patience import PATIENCE

QUICK = Limits(
    head_seconds=0.05,
    body_seconds=0.05,
    idle_seconds=0.05,
    stall_seconds=0.05,
    linger_seconds=0.05,
)


async def test_a_head_that_does_not_end_is_cut_off() -> None:
    async with serving(limits=QUICK) as port, connected(port) as client:
        client.say("POST /v1/x HTTP/1.1\r\nHost: a\r\nX-Slow")
        got = await client.answer()
        rest = await client.rest()

    assert got.status == 408
    assert b"request_timeout" in got.body
    assert rest == b""


async def test_dripping_a_head_does_not_buy_time() -> None:
    async with serving(limits=QUICK) as port, connected(port) as client:
        client.say("POST /v1/x HTTP/1.1\r\nHost: a\r\n")
        dripping = asyncio.create_task(drip(client, b"X-Slow: 1\r\n"))
        got = await client.answer()
        dripping.cancel()

    assert got.status == 408


async def test_dripping_a_body_does_not_buy_time() -> None:
    async with serving(limits=QUICK) as port, connected(port) as client:
        client.say("POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\n")
        dripping = asyncio.create_task(drip(client, b"x"))
        got = await client.answer()
        dripping.cancel()

    assert got.status == 408


async def drip(client: Client, data: bytes) -> None:
    while True:
        client.say(data)
        await asyncio.sleep(0.01)


async def test_a_steady_upload_may_take_longer_than_the_limit() -> None:
    limits = Limits(body_seconds=1.0)
    async with serving(limits=limits) as port, connected(port) as client:
        client.say(
            f"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: {8 * 16384}\r\n\r\n"
        )
        for _ in range(8):
            await asyncio.sleep(0.2)
            client.say(b"x" * 16384)
        got = await client.answer()

    assert len(got.body) == 8 * 16384


@pytest.mark.parametrize("requests", [0, 1])
async def test_an_idle_connection_is_closed_without_an_answer(requests: int) -> None:
    async with serving(limits=QUICK) as port, connected(port) as client:
        for _ in range(requests):
            client.post()
            await client.answer()

        assert await client.rest() == b""


async def test_a_slow_answer_is_not_an_idle_connection() -> None:
    async def handler(_: Request, reply: Response) -> None:
        await asyncio.sleep(0.2)
        await reply.send(200, {}, b"at last")

    async with serving(handler, limits=QUICK) as port, connected(port) as client:
        client.post()

        assert (await client.answer()).body == b"at last"


@pytest.mark.parametrize("end", ["", "\r\n\r\n"])
async def test_a_head_past_the_limit_is_refused(end: str) -> None:
    limits = Limits(head_bytes=1000)
    async with serving(limits=limits) as port, connected(port) as client:
        client.say(f"GET /v1/x HTTP/1.1\r\nHost: a\r\nX-Long: {'x' * 1000}{end}")
        got = await client.answer()

    assert got.status == 431
    assert b"1000 bytes" in got.body


async def test_one_address_cannot_take_every_connection() -> None:
    limits = Limits(per_address=2)
    async with serving(limits=limits) as port:
        async with connected(port) as first, connected(port), connected(port) as third:
            refused = await third.answer()
            first.post(b"served")
            served = await first.answer()
        async with connected(port) as again:
            await closed_before(again)
            again.post(b"welcome")
            welcome = await again.answer()

    assert refused.status == 429
    assert b"127.0.0.1 has too many connections" in refused.body
    assert (served.body, welcome.body) == (b"served", b"welcome")


async def closed_before(_: Client) -> None:
    """Let the server notice connections that were closed earlier."""
    for _turn in range(5):
        await asyncio.sleep(0)


async def test_a_stalled_client_is_dropped_and_its_work_ends() -> None:
    ended = asyncio.Event()

    async def handler(_: Request, reply: Response) -> None:
        await reply.start(200, {})
        try:
            while True:
                await reply.write(b"x" * 65536)
        finally:
            ended.set()

    async with serving(handler, limits=QUICK) as port, connected(port) as client:
        client.post()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(PATIENCE):
            await ended.wait()


async def test_a_stalled_client_is_dropped_after_its_answer_too() -> None:
    async def handler(request: Request, reply: Response) -> None:
        await reply.send(200, {}, request.body or b"x" * (16 * MIB))

    limits = Limits(stall_seconds=0.05, high_water=64 * MIB, per_address=1)
    async with serving(handler, limits=limits) as port:
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(b"GET /v1/x HTTP/1.1\r\nHost: a\r\n\r\n")
            async with asyncio.timeout(PATIENCE):
                while await is_refused(port):
                    await asyncio.sleep(0.02)
            sock.settimeout(PATIENCE)
            got = await asyncio.to_thread(drained, sock)

    assert 0 < got < 16 * MIB


async def is_refused(port: int) -> bool:
    """Whether another client takes the only connection that is let in."""
    async with connected(port) as another:
        another.post(b"hello")
        return (await another.answer()).status == 429


def drained(sock: socket.socket) -> int:
    total = 0
    try:
        while data := sock.recv(MIB):
            total += len(data)
    except ConnectionResetError:
        pass
    return total


async def test_a_slow_reader_slows_only_itself() -> None:
    """The slow one's upstream is held back; the fast one gets everything at once."""
    pieces, piece = 400, b"x" * 65536
    sent: dict[bytes, int] = {b"slow": 0, b"fast": 0}

    async def script(client: Client) -> None:
        who = await a_request(client)
        client.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(pieces):
            client.say(b"10000\r\n" + piece + b"\r\n")
            await client.writer.drain()
            sent[who] += 1
        client.say("0\r\n\r\n")
        await client.writer.drain()

    async with server(script) as origin, upstream(connect_seconds=30) as up:

        async def handler(request: Request, reply: Response) -> None:
            async with up.ask(origin, "POST", "/", {}, request.body) as answer:
                await reply.start(200, {})
                await answer.pump(reply, unseen)
                await reply.finish()

        async with (
            serving(handler) as port,
            connected(port) as slow,
            connected(port) as fast,
        ):
            slow.post(b"slow")
            await slow.head()
            slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
            fast.post(b"fast")
            whole = await fast.answer()
            held_at = sent[b"slow"]
            slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
            slow_bytes = 0
            while data := await slow.chunk():
                slow_bytes += len(data)

    assert len(whole.body) == pieces * len(piece)
    assert held_at < pieces
    assert slow_bytes == pieces * len(piece)
