"""How the fast front treats one connection."""

from __future__ import annotations

import asyncio

from aiohttp import web

from edgeserve.http import Request, Response
from tests.edgeserve.http.talk import MIB, connected, echo, in_chunks, serving


async def page(_: web.Request) -> web.Response:
    return web.Response(text="a page")


async def test_a_connection_is_kept_for_further_requests() -> None:
    async with serving() as port, connected(port) as client:
        for body in (b"one", b"two", b"three"):
            client.post(body)
            got = await client.answer()

            assert got.body == body
            assert "connection" not in got.headers


async def test_requests_sent_at_once_are_answered_in_order() -> None:
    gate = asyncio.Event()

    async def handler(request: Request, reply: Response) -> None:
        if request.body == b"first":
            await gate.wait()
        else:
            assert gate.is_set()
        await reply.send(200, {}, request.body)

    async with serving(handler) as port, connected(port) as client:
        for body in (b"first", b"second", b"third"):
            client.post(body)
        await client.writer.drain()
        gate.set()
        bodies = [(await client.answer()).body for _ in range(3)]

    assert bodies == [b"first", b"second", b"third"]


async def test_a_page_asked_for_behind_a_completion_is_served_after_it() -> None:
    routes = [web.get("/ui", page)]
    async with serving(echo, routes) as port, connected(port) as client:
        client.post(b"first")
        client.say("GET /ui HTTP/1.1\r\nHost: a\r\n\r\n")
        bodies = [(await client.answer()).body for _ in range(2)]
        rest = await client.rest()

    assert bodies == [b"first", b"a page"]
    assert rest == b"", "aiohttp answers one request a connection"


async def test_more_than_fits_may_be_sent_ahead() -> None:
    count, body = 60, b"x" * 20_000
    async with serving() as port, connected(port) as client:
        for _ in range(count):
            client.post(body)
        bodies = [(await client.answer()).body for _ in range(count)]

    assert bodies == [body] * count


async def test_a_request_may_come_byte_by_byte() -> None:
    async with serving() as port, connected(port) as client:
        for byte in b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc":
            client.say(bytes((byte,)))
            await client.writer.drain()
            await asyncio.sleep(0)
        got = await client.answer()

    assert got.body == b"abc"


async def test_a_chunked_request_body_arrives_whole() -> None:
    async with serving() as port, connected(port) as client:
        client.say(
            "POST /v1/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        client.say(
            in_chunks(b"one ", b"t" * 70_000, b" three").partition(b"\r\n\r\n")[2]
        )
        client.post(b"after")
        first, second = await client.answer(), await client.answer()

    assert first.body == b"one " + b"t" * 70_000 + b" three"
    assert second.body == b"after"


async def test_a_client_that_expects_100_continue_gets_it() -> None:
    async with serving() as port, connected(port) as client:
        client.say(
            "POST /v1/x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
            "Content-Length: 4\r\n\r\n"
        )
        go_on = await client.answer()
        client.say("body")
        got = await client.answer()

    assert go_on.status == 100
    assert (got.status, got.body) == (200, b"body")


async def test_a_body_that_will_be_too_large_is_not_asked_for() -> None:
    async with serving(body_limit=10) as port, connected(port) as client:
        client.say(
            "POST /v1/x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
            "Content-Length: 11\r\n\r\n"
        )
        got = await client.answer()

    assert got.status == 413
    assert got.headers["connection"] == "close"


async def test_chunks_past_the_limit_are_refused_before_the_last() -> None:
    async with serving(body_limit=10) as port, connected(port) as client:
        client.say(
            "POST /v1/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        client.say("8\r\n12345678\r\n8\r\n12345678\r\n")
        got = await client.answer()

    assert got.status == 413


async def test_a_refusal_is_read_even_by_a_client_that_is_still_sending() -> None:
    async with serving(body_limit=MIB) as port, connected(port) as client:
        client.post(b"x" * (8 * MIB))
        got = await client.answer()

    assert got.status == 413


async def test_an_old_client_gets_an_answer_that_ends_with_its_connection() -> None:
    async def handler(_: Request, reply: Response) -> None:
        await reply.start(200, {})
        await reply.write(b"piece ")
        await reply.write(b"by piece")
        await reply.finish()

    async with serving(handler) as port, connected(port) as client:
        client.say("GET /v1/x HTTP/1.0\r\n\r\n")
        got = await client.answer()

    assert got.body == b"piece by piece"
    assert got.headers["connection"] == "close"


async def test_an_old_client_may_keep_its_connection() -> None:
    async with serving() as port, connected(port) as client:
        for _ in range(2):
            client.say("POST /v1/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            got = await client.answer()

            assert got.headers["connection"] == "keep-alive"


async def test_a_client_may_ask_to_close() -> None:
    async with serving() as port, connected(port) as client:
        client.post(b"last", extra="Connection: close\r\n")
        got = await client.answer()
        rest = await client.rest()

    assert (got.body, rest) == (b"last", b"")
    assert got.headers["connection"] == "close"


async def test_a_bug_in_a_handler_is_a_500_and_the_connection_lives_on() -> None:
    async def handler(request: Request, reply: Response) -> None:
        if request.body == b"break":
            raise RuntimeError("a bug")
        await reply.send(200, {}, b"well")

    async with serving(handler) as port, connected(port) as client:
        client.post(b"break")
        broken = await client.answer()
        client.post(b"work")
        well = await client.answer()

    assert broken.status == 500
    assert b"a bug" not in broken.body
    assert well.body == b"well"


async def test_a_handler_that_forgets_to_answer_is_a_500() -> None:
    async def handler(_: Request, __: Response) -> None:
        pass

    async with serving(handler) as port, connected(port) as client:
        client.post()

        assert (await client.answer()).status == 500


async def test_a_header_value_cannot_break_out_of_its_line() -> None:
    async def handler(_: Request, reply: Response) -> None:
        await reply.send(200, {"x-model": "a\r\nset-cookie: b"}, b"")

    async with serving(handler) as port, connected(port) as client:
        client.post()
        got = await client.answer()

    assert got.status == 500
    assert "set-cookie" not in got.headers
