"""Routes that aiohttp answers keep the relay's limits."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiohttp import web

from edgeserve.http import Limits
from tests.edgeserve.http.talk import MIB, connected, echo, serving
from tests.patience import PATIENCE


async def page(request: web.Request) -> web.Response:
    return web.Response(
        body=await request.read(), headers={"x-target": request.path_qs}
    )


ROUTES = [web.get("/page", page), web.post("/page", page)]


async def test_a_client_that_does_not_read_a_page_is_dropped() -> None:
    asked = asyncio.Event()

    async def large(_: web.Request) -> web.Response:
        asked.set()
        return web.Response(body=b"x" * (16 * MIB))

    limits = Limits(stall_seconds=0.05, connections=1)
    async with serving(echo, [web.get("/large", large)], limits=limits) as port:
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
            async with asyncio.timeout(PATIENCE):
                await asked.wait()
                while await is_full(port):
                    await asyncio.sleep(0.02)
            sock.settimeout(PATIENCE)
            got = await asyncio.to_thread(drained, sock)

    assert 0 < got < 16 * MIB


async def is_full(port: int) -> bool:
    async with connected(port) as another:
        another.post(b"hello")
        return (await another.answer()).status == 503


def drained(sock: socket.socket) -> int:
    total = 0
    try:
        while data := sock.recv(MIB):
            total += len(data)
    except ConnectionError:
        pass
    return total


@pytest.mark.parametrize("path", ["/page", "/v1/x", "/nowhere"])
@pytest.mark.parametrize(
    ("size", "status"), [(10_000, 200), (60_000, 200), (70_000, 431)]
)
async def test_every_route_has_the_same_limit_of_a_head(
    path: str, size: int, status: int
) -> None:
    async with serving(echo, ROUTES) as port, connected(port) as client:
        client.post(b"", path, f"X: {'x' * size}\r\n")
        got = await client.answer()

    assert got.status == (404 if (path, status) == ("/nowhere", 200) else status)
    assert got.status == 200 or b'{"error": {"message"' in got.body


@pytest.mark.parametrize("path", ["/page", "/v1/x", "/nowhere"])
@pytest.mark.parametrize(("size", "status"), [(20_000, 200), (60_000, 414)])
async def test_every_route_has_the_same_limit_of_a_target(
    path: str, size: int, status: int
) -> None:
    async with serving(echo, ROUTES) as port, connected(port) as client:
        client.post(b"", f"{path}?{'x' * size}")
        got = await client.answer()

    assert got.status == (404 if (path, status) == ("/nowhere", 200) else status)


@pytest.mark.parametrize("end", ["", "a", "Content-Length: 5\r\n\r\n"])
async def test_what_follows_a_request_for_a_page_is_dropped(end: str) -> None:
    async with serving(echo, ROUTES) as port, connected(port) as client:
        client.say("GET /page HTTP/1.1\r\nHost: a\r\n\r\n" + end)
        got = await client.answer()

        assert got.status == 200
        assert await client.rest() == b""


async def test_a_page_may_be_asked_for_in_chunks_and_after_asking() -> None:
    async with serving(echo, ROUTES) as port, connected(port) as client:
        client.say(
            "POST http://a/page?b=%20 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
            "Transfer-Encoding: chunked\r\n\r\n"
        )
        go_on = await client.answer()
        client.say("3\r\nabc\r\n0\r\n\r\n")
        got = await client.answer()

    assert go_on.status == 100
    assert (got.status, got.body) == (200, b"abc")
    assert got.headers["x-target"] == "/page?b=%20"


async def test_a_page_that_breaks_says_so_in_our_shape() -> None:
    async def broken(_: web.Request) -> web.Response:
        raise RuntimeError("a bug")

    routes = [web.get("/broken", broken)]
    async with serving(echo, routes) as port, connected(port) as client:
        client.say("GET /broken HTTP/1.1\r\nHost: a\r\n\r\n")
        got = await client.answer()

    assert got.status == 500
    assert b'"code": "internal_error"' in got.body
    assert b"a bug" not in got.body


@pytest.mark.parametrize(
    "words",
    ["SSH-2.0-OpenSSH_9\r\n", "GET /\r\n", "get /",
     "\x00", "{", "EHLO a\r\n", "PRI * HTTP/2.0\r\n", "GET /v1/x HTTP/1.1\n"],
)  # fmt: skip
async def test_another_protocol_is_refused_at_once(words: str) -> None:
    async with serving() as port, connected(port) as client:
        client.say(words.encode("latin-1"))
        got = await client.answer()

        assert got.status == 400
        assert b'"code": "bad_request"' in got.body


@pytest.mark.parametrize("step", [1, 3, 1000])
async def test_an_honest_head_may_come_in_any_pieces(step: int) -> None:
    head = b"M-SEARCH /v1/x?a HTTP/1.1\r\nHost: a\r\n\r\n"
    async with serving() as port, connected(port) as client:
        for at in range(0, len(head), step):
            client.say(head[at : at + step])
            await client.writer.drain()
            await asyncio.sleep(0)

        assert (await client.answer()).status == 200


async def test_a_path_may_be_spelt_in_other_ways() -> None:
    async with serving() as port, connected(port) as client:
        client.post(b"", "/%76%31/x?a=%20b")
        got = await client.answer()

    assert got.headers["x-target"] == "/v1/x?a=%20b"


@pytest.mark.parametrize("path", ["/v1/x", "/page"])
@pytest.mark.parametrize("odd", ["%0d%0aX:%20y", "%00", "%1F", "%7f"])
async def test_a_target_holds_no_control_characters(path: str, odd: str) -> None:
    async with serving(echo, ROUTES) as port, connected(port) as client:
        client.post(b"", f"{path}?a={odd}")

        assert (await client.answer()).status == 400
