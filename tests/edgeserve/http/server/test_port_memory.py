"""Whose body is read, and how much is held at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from aiohttp import web

from edgeserve.config.settings import BalancerSettings, NodeSettings
from edgeserve.errors import NoRoom, Unauthorized
from edgeserve.http import Limits, Request, Response, bind, limits_of, listen
from edgeserve.http.server.limits import BodyMemory
from tests.edgeserve.http.talk import MIB, connected, echo, is_ours, serving


def nobody(headers: Mapping[str, str]) -> None:
    if "x-key" not in headers:
        raise Unauthorized("API key missing or wrong")


async def test_a_client_without_access_need_not_send_a_body() -> None:
    asked: list[Request] = []

    async def handler(request: Request, reply: Response) -> None:
        asked.append(request)
        await echo(request, reply)

    sock = bind("127.0.0.1", 0)
    async with (
        listen(sock, handler, is_ours, (), body_limit=2**30, admit=nobody) as port,
        connected(port) as client,
        connected(port) as known,
    ):
        client.say("POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n")
        refused = await client.answer()
        known.say("POST /v1/x HTTP/1.1\r\nHost: a\r\nX-Key: 1\r\nContent-Length: 3\r\n")
        known.say("\r\n")
        known.say("abc")
        answered = await known.answer()

    assert refused.status == 401
    assert answered.body == b"abc"
    assert len(asked) == 1


async def test_expecting_clients_are_refused_before_the_body() -> None:
    sock = bind("127.0.0.1", 0)
    async with (
        listen(sock, echo, is_ours, (), body_limit=2**30, admit=nobody) as port,
        connected(port) as client,
    ):
        client.say("POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n")
        client.say("Expect: 100-continue\r\n\r\n")
        refused = await client.answer()

    assert refused.status == 401


async def test_bodies_past_the_memory_for_them_get_a_time_to_come_back() -> None:
    limits = Limits(held_bytes=100_000)
    begun, go = asyncio.Event(), asyncio.Event()

    async def handler(request: Request, reply: Response) -> None:
        begun.set()
        await go.wait()
        await echo(request, reply)

    async with (
        serving(handler, limits=limits) as port,
        connected(port) as first,
        connected(port) as second,
        connected(port) as third,
    ):
        first.post(b"x" * 60_000)
        await begun.wait()
        second.post(b"y" * 60_000)
        refused = await second.answer()
        go.set()
        answered = await first.answer()
        third.post(b"z" * 60_000)
        later = await third.answer()

    assert refused.status == 503
    assert b'"code": "no_room"' in refused.body
    assert int(refused.headers["retry-after"]) >= 1
    assert (answered.status, later.status) == (200, 200)


async def test_a_body_that_never_came_whole_is_forgotten_with_its_client() -> None:
    limits = Limits(held_bytes=100_000)
    async with serving(limits=limits) as port:
        for _ in range(5):
            async with connected(port) as client:
                client.say("POST /v1/x HTTP/1.1\r\nHost: a\r\n")
                client.say("Content-Length: 90000\r\n\r\n" + "x" * 80_000)
                await client.writer.drain()
        async with connected(port) as client:
            client.post(b"x" * 90_000)
            got = await client.answer()

    assert got.status == 200


async def test_requests_at_once_are_bounded_where_it_is_asked_for() -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def handler(request: Request, reply: Response) -> None:
        begun.set()
        await go.wait()
        await echo(request, reply)

    async with (
        serving(handler, limits=Limits(requests=1)) as port,
        connected(port) as first,
        connected(port) as second,
    ):
        first.post(b"x")
        await begun.wait()
        second.post(b"y")
        refused = await second.answer()
        go.set()
        answered = await first.answer()

    assert (refused.status, answered.status) == (503, 200)


def test_what_was_refused_is_not_counted() -> None:
    room = BodyMemory(Limits(held_bytes=10))
    room.begin(8)
    with pytest.raises(NoRoom):
        room.begin(3)

    assert (room.held, room.requests) == (8, 1)
    room.end(8)
    assert (room.held, room.requests) == (0, 0)


def test_the_relays_own_limits_are_the_default_settings() -> None:
    assert limits_of(BalancerSettings()) == limits_of(NodeSettings()) == Limits()

    chosen = BalancerSettings(head_seconds=1, body_limit_mib=2048, requests_at_once=7)
    limits = limits_of(chosen)
    assert (limits.head_seconds, limits.requests) == (1, 7)
    assert limits.held_bytes == 1024 * MIB, "what is held is bounded by its own setting"


async def test_a_page_of_ours_does_not_wait_for_ever_for_its_request() -> None:
    async def register(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    routes = [web.post("/edgeserve/register", register)]
    limits = Limits(body_seconds=0.1)
    async with serving(echo, routes, limits=limits) as port, connected(port) as client:
        client.say("POST /edgeserve/register HTTP/1.1\r\nHost: a\r\n")
        client.say("Content-Length: 99\r\n\r\nslowly")
        got = await client.answer()

    assert got.status == 408


async def test_no_client_can_hold_a_connection_behind_a_page_of_ours() -> None:
    async def page(_: web.Request) -> web.Response:
        return web.Response(body=b"a page")

    async with (
        serving(echo, [web.get("/edgeserve/page", page)]) as port,
        connected(port) as client,
    ):
        client.say("GET /edgeserve/page HTTP/1.1\r\nHost: a\r\n\r\n")
        got = await client.answer()
        rest = await client.rest()

    assert got.headers["connection"] == "close"
    assert rest == b""


async def test_a_body_past_what_may_be_held_is_too_large_not_too_early() -> None:
    async with serving(limits=Limits(held_bytes=1000)) as port:
        for size, status in ((1001, 413), (1000, 200)):
            async with connected(port) as client:
                client.post(b"x" * size)
                got = await client.answer()

            assert got.status == status
