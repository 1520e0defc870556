from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from edgeserve.relay import Origin, upstream
from edgeserve.wire import Registration, decode
from node.register import pause, registered
from tests.patience import PATIENCE


class Registry:
    """Plays the balancer: takes registrations, with whatever status it likes."""

    def __init__(self) -> None:
        self.status = 200
        self.seen: list[tuple[str, str]] = []
        self._more = asyncio.Event()

    async def register(self, request: web.Request) -> web.Response:
        shown = request.headers.get("authorization", "")
        url = decode(await request.read(), Registration).url
        self.seen.append((url, shown))
        self._more.set()
        return web.Response(status=self.status)

    async def times(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self.seen) < count:
                self._more.clear()
                await self._more.wait()


@asynccontextmanager
async def a_balancer() -> AsyncGenerator[tuple[Registry, str]]:
    registry = Registry()
    app = web.Application()
    app.router.add_post("/edgeserve/v1/register", registry.register)
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
        registered([url], Origin("::", 8090), ask, "the-token"),
    ):
        await registry.times(1)

    assert registry.seen[0] == ("http://127.0.0.1:8090", "Bearer the-token")


async def test_a_node_registers_again_and_again() -> None:
    async with (
        a_balancer() as (registry, url),
        upstream(connect_seconds=30) as ask,
        registered([url], Origin("::", 8090), ask, None, every=0.01),
    ):
        await registry.times(3)

    assert registry.seen[0] == ("http://127.0.0.1:8090", "")


async def test_a_balancer_with_another_token_is_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with a_balancer() as (registry, url), upstream(connect_seconds=30) as ask:
        registry.status = 401
        async with registered([url], Origin("::", 8090), ask, "wrong-token"):
            await registry.times(2)

    said = [each.message for each in caplog.records if "balancer" in each.message]
    assert len(said) == 1
    assert "another fleet token" in said[0]


async def test_a_balancer_that_is_not_there_stops_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with a_balancer() as (registry, url), upstream(connect_seconds=30) as ask:
        nowhere = "http://127.0.0.1:9"
        async with registered([nowhere, url], Origin("::", 8090), ask, None):
            await registry.times(1)
            async with asyncio.timeout(PATIENCE):
                while nowhere not in caplog.text:
                    await asyncio.sleep(0.01)


def test_tries_become_rarer_while_they_fail() -> None:
    assert [pause(n, 10.0) for n in range(8)] == [10, 1, 2, 4, 8, 16, 30, 30]
