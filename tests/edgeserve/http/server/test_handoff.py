"""How answers break off and how the front stops."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from edgeserve.http import Request, Response, bind, listen
from tests.edgeserve.http.talk import MIB, connected, echo, is_ours, serving
from tests.patience import PATIENCE


async def page(_: web.Request) -> web.Response:
    return web.Response(text="a page")


async def test_a_client_that_shuts_its_sending_half_counts_as_gone() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def handler(_: Request, __: Response) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with serving(handler) as port, connected(port) as client:
        client.post()
        async with asyncio.timeout(PATIENCE):
            await begun.wait()
            client.writer.write_eof()
            await ended.wait()


async def test_half_a_request_and_a_closed_half_leave_nothing_behind() -> None:
    async with serving() as port, connected(port) as client:
        client.say("POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
        client.writer.write_eof()

        assert await client.rest() == b""


async def test_an_answer_that_breaks_off_does_not_look_whole() -> None:
    async def handler(_: Request, reply: Response) -> None:
        await reply.start(200, {})
        await reply.write(b"the beginning")
        raise RuntimeError("a bug")

    async with serving(handler) as port, connected(port) as client:
        client.post()
        await client.head()

        assert await client.chunk() == b"the beginning"
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError, ValueError)):
            await client.chunk()


async def test_an_answer_under_way_is_finished_when_the_server_stops() -> None:
    begun = asyncio.Event()

    async def handler(_: Request, reply: Response) -> None:
        await reply.start(200, {})
        begun.set()
        await asyncio.sleep(0.05)
        await reply.write(b"all of it")
        await reply.finish()

    sock = bind("127.0.0.1", 0)
    async with listen(
        sock, handler, is_ours, [], body_limit=MIB, stop_seconds=PATIENCE
    ) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /v1/x HTTP/1.1\r\nHost: a\r\n\r\n")
        await begun.wait()
    got = await reader.read()
    writer.close()

    assert got.endswith(b"all of it\r\n0\r\n\r\n")


async def test_stopping_waits_for_a_stuck_answer_only_so_long() -> None:
    begun = asyncio.Event()

    async def handler(_: Request, __: Response) -> None:
        begun.set()
        await asyncio.Event().wait()

    loop = asyncio.get_running_loop()
    async with serving(handler, stop_seconds=0.05) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /v1/x HTTP/1.1\r\nHost: a\r\n\r\n")
        await begun.wait()
        before = loop.time()
    took = loop.time() - before
    with pytest.raises(ConnectionError):
        await reader.read()
    writer.close()

    assert took < PATIENCE


async def test_a_broken_answer_to_an_old_client_does_not_look_whole() -> None:
    async def handler(_: Request, reply: Response) -> None:
        await reply.start(200, {})
        await reply.write(b"the beginning")
        await asyncio.sleep(0.02)  # let it arrive: a reset takes with it what is unread
        raise RuntimeError("a bug")

    async with serving(handler) as port, connected(port) as client:
        client.say("GET /v1/x HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionError):
            await client.answer()


async def test_stopping_closes_idle_connections_and_pages() -> None:
    async with serving(echo, [web.get("/ui", page)]) as port:
        kept, paged = [
            await asyncio.open_connection("127.0.0.1", port) for _ in range(2)
        ]
        kept[1].write(b"POST /v1/x HTTP/1.1\r\nHost: a\r\n\r\n")
        await kept[0].readuntil(b"\r\n\r\n")
        paged[1].write(b"GET /ui HTTP/1.1\r\nHost: a\r\n\r\n")
        await paged[0].readuntil(b"a page")
    async with asyncio.timeout(PATIENCE):
        assert await kept[0].read() == b""
        assert await paged[0].read() == b""
    kept[1].close()
    paged[1].close()
