from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from edgeserve.http import Origin, upstream
from edgeserve.http.client.pool import Pool
from edgeserve.security.proof import fleet_key, registration_mac
from edgeserve.security.registration import Registration
from edgeserve.wire import decode
from node.discovery.client import FleetClient
from node.discovery.registration import ListenAddress, pause, registered
from tests.fakes.tokens import GivenTokens
from tests.patience import PATIENCE

HERE = ListenAddress(origin=Origin("::", 8090))


class Registry:
    """Plays the balancer: takes registrations, with whatever status it likes."""

    def __init__(self) -> None:
        self.status = 200
        self.body = b"{}"
        self.seen: list[tuple[str, str]] = []
        self.ids: list[str | None] = []
        self._more = asyncio.Event()

    async def register(self, request: web.Request) -> web.Response:
        said = decode(await request.read(), Registration)
        assert "authorization" not in request.headers
        self.seen.append((said.url, said.proof))
        self.ids.append(said.id)
        self._more.set()
        return web.Response(status=self.status, body=self.body)

    async def times(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self.seen) < count:
                self._more.clear()
                await self._more.wait()

    async def challenge(self, _: web.Request) -> web.Response:
        return web.json_response({"nonce": "n1"})


def a_client(upstream: Pool, *tokens: str) -> FleetClient:
    return FleetClient(balancers=upstream, nodes=upstream, tokens=GivenTokens(*tokens))


@asynccontextmanager
async def a_balancer() -> AsyncGenerator[tuple[Registry, str]]:
    registry = Registry()
    app = web.Application()
    app.router.add_post("/edgeserve/v1/register", registry.register)
    app.router.add_get("/edgeserve/v1/register", registry.challenge)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield registry, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_node_says_where_the_balancer_can_reach_it() -> None:
    async with (
        a_balancer() as (registry, url),
        upstream(connect_seconds=30) as ask,
        registered([url], HERE, a_client(ask, "the-token")),
    ):
        await registry.times(1)

    content = "http://127.0.0.1:8090\n"
    proof = registration_mac(fleet_key("the-token"), "node", "n1", content)
    assert registry.seen[0] == ("http://127.0.0.1:8090", proof)


async def test_a_node_registers_again_and_again() -> None:
    async with (
        a_balancer() as (registry, url),
        upstream(connect_seconds=30) as ask,
        registered([url], HERE, a_client(ask), every=0.01),
    ):
        await registry.times(3)

    assert registry.seen[0] == ("http://127.0.0.1:8090", "")


async def test_a_balancer_with_another_token_is_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with a_balancer() as (registry, url), upstream(connect_seconds=30) as ask:
        registry.status = 401
        async with registered([url], HERE, a_client(ask, "wrong-token")):
            await registry.times(2)

    said = [each.message for each in caplog.records if "balancer" in each.message]
    assert len(said) == 1
    assert "another fleet token" in said[0]


async def test_a_balancer_that_does_not_prove_itself_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with (
        a_balancer() as (registry, url),
        upstream(connect_seconds=30) as ask,
        registered([url], HERE, a_client(ask, "the-token")),
    ):
        await registry.times(2)

    assert "does not prove that it holds the fleet token" in caplog.text


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (
            200,
            {"problem": "http://pi:8090 is silent"},
            "pi:8090 is silent",
        ),
        (
            400,
            {"error": {"message": "ftp://x is no URL"}},
            "400: ftp://x is no URL",
        ),
        (404, "<html>nginx</html>", "no EdgeServe balancer"),
        (200, "<html>a web server</html>", "no EdgeServe balancer"),
    ],
)
async def test_why_a_balancer_has_no_use_for_it_is_logged_once(
    status: int, body: object, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_balancer() as (registry, url), upstream(connect_seconds=30) as ask:
        registry.status, registry.body = status, json.dumps(body).encode()
        async with registered([url], HERE, a_client(ask)):
            await registry.times(2)

    said = [each.message for each in caplog.records if "balancer" in each.message]
    assert len(said) == 1
    assert sentence in said[0]


async def test_without_a_token_it_says_so_where_one_is_asked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with a_balancer() as (registry, url), upstream(connect_seconds=30) as ask:
        registry.status = 401
        async with registered([url], HERE, a_client(ask)):
            await registry.times(2)

    assert "and this node has none" in caplog.text


async def test_a_url_that_was_set_is_announced_instead_with_the_nodes_id() -> None:
    announced = "http://192.168.1.20:9090"
    here = ListenAddress(origin=HERE.origin, announced=announced, id=lambda: "the-id")
    async with (
        a_balancer() as (registry, url),
        upstream(connect_seconds=30) as ask,
        registered([url], here, a_client(ask)),
    ):
        await registry.times(1)

    assert (registry.seen[0][0], registry.ids) == (announced, ["the-id"])


async def test_a_balancer_that_is_not_there_does_not_stop_the_node(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with a_balancer() as (registry, url), upstream(connect_seconds=30) as ask:
        nowhere = "http://127.0.0.1:9"
        async with registered([nowhere, url], HERE, a_client(ask)):
            await registry.times(1)
            async with asyncio.timeout(PATIENCE):
                while nowhere not in caplog.text:
                    await asyncio.sleep(0.01)


def test_tries_become_rarer_while_they_fail() -> None:
    assert [pause(n, 10.0) for n in range(8)] == [10, 1, 2, 4, 8, 16, 30, 30]
