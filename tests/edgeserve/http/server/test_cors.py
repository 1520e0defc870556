"""CORS: which web pages get answers in a browser."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from edgeserve.http import Cors, Request, Response, bind, listen
from tests.edgeserve.http.talk import Client, connected

FRIEND = "https://chat.example"
STRANGER = "https://elsewhere.example"
FRIENDS = Cors(frozenset((FRIEND,)), here=False)
ALLOWED = "access-control-allow-origin"


async def engine(_: Request, reply: Response) -> None:
    """Answer as llama.cpp does: with a word to browsers of its own."""
    await reply.send(200, {"Access-Control-Allow-Origin": "*"}, b"an answer")


async def page(_: web.Request) -> web.Response:
    return web.Response(text="a page")


@asynccontextmanager
async def asking(cors: Cors = FRIENDS) -> AsyncGenerator[Client]:
    paths = ("/edgeserve/v1/nodes", "/v1/health", "/v1/models", "/models")
    routes = [web.get(path, page) for path in paths]
    sock = bind("127.0.0.1", 0)
    async with (
        listen(sock, engine, "/v1/x".__eq__, routes, body_limit=999, cors=cors) as port,
        connected(port) as client,
    ):
        yield client


def ask(client: Client, method: str, path: str, *fields: str) -> None:
    client.say("\r\n".join((f"{method} {path} HTTP/1.1", "Host: a", *fields, "", "")))


def preflight(client: Client, origin: str, path: str) -> None:
    ask(
        client,
        *("OPTIONS", path, f"Origin: {origin}"),
        "Access-Control-Request-Method: POST",
        "Access-Control-Request-Headers: authorization, x-custom",
    )


@pytest.mark.parametrize("path", ["/v1/x", "/v1/models"])
async def test_a_browser_that_asks_for_an_allowed_page_is_let_through(
    path: str,
) -> None:
    async with asking() as client:
        preflight(client, FRIEND, path)
        got = await client.answer()

    assert got.status == 204
    assert got.headers[ALLOWED] == FRIEND
    assert "POST" in got.headers["access-control-allow-methods"]
    assert got.headers["access-control-allow-headers"] == "authorization, x-custom"


@pytest.mark.parametrize("path", ["/v1/x", "/v1/models"])
async def test_a_browser_that_asks_for_any_other_page_is_not(path: str) -> None:
    async with asking() as client:
        preflight(client, STRANGER, path)
        got = await client.answer()

    assert ALLOWED not in got.headers


@pytest.mark.parametrize(
    ("path", "method"), [("/v1/x", "POST"), ("/v1/models", "GET"), ("/models", "GET")]
)
async def test_answers_name_the_page_that_may_read_them(path: str, method: str) -> None:
    async with asking() as client:
        ask(client, method, path, f"Origin: {FRIEND}")
        got = await client.answer()

    assert got.status == 200
    assert got.headers[ALLOWED] == FRIEND
    assert got.headers["vary"].lower() == "origin"


async def test_an_engines_own_cors_headers_do_not_count() -> None:
    async with asking() as client:
        ask(client, "POST", "/v1/x", f"Origin: {STRANGER}")
        got = await client.answer()

    assert got.body == b"an answer"
    assert ALLOWED not in got.headers


@pytest.mark.parametrize("path", ["/edgeserve/v1/nodes", "/v1/health"])
async def test_the_fleets_own_routes_are_for_no_page(path: str) -> None:
    async with asking(Cors(frozenset("*"))) as client:
        preflight(client, FRIEND, path)
        got = await client.answer()

    assert ALLOWED not in got.headers


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:3000", True),
        ("https://127.0.0.1", True),
        ("http://[::1]:8080", True),
        ("http://localhost.evil.example", False),
        ("http://127.0.0.1.evil.example", False),
        ("tauri://localhost", True),
        ("null", False),
        ("http://[", False),
        ("", False),
    ],
)
def test_pages_of_this_machine_are_known_by_their_host(
    origin: str, allowed: bool
) -> None:
    assert Cors().allows(origin) is allowed
