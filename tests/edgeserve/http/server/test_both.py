"""What both relays promise to a client."""

from __future__ import annotations

from types import ModuleType

from edgeserve.errors import FleetBusy
from edgeserve.http import Request, Response
from tests.edgeserve.http.both import both, serving
from tests.edgeserve.http.talk import MIB, connected

pytestmark = both


async def test_a_request_arrives_as_it_was_sent(kind: ModuleType) -> None:
    came: list[Request] = []

    async def handler(request: Request, reply: Response) -> None:
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
    async def handler(_: Request, reply: Response) -> None:
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
        # The fast one lets aiohttp answer one request a connection.
        async with connected(port) as another:
            another.post(b"and back", "/v1/x")
            echoed = await another.answer()

    assert page.body == b"a page"
    assert echoed.body == b"and back"


async def test_an_unknown_path_gets_an_error_of_ours(kind: ModuleType) -> None:
    async with serving(kind) as port, connected(port) as client:
        client.say("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n")
        got = await client.answer()

    assert got.status == 404
    assert b'"code": "not_found"' in got.body


async def test_an_error_of_ours_becomes_its_own_answer(kind: ModuleType) -> None:
    async def handler(_: Request, __: Response) -> None:
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
