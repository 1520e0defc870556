"""The event stream of the balancer: what was, then what happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from balancer.api.events import event_stream
from balancer.clients.admission import admitting
from balancer.clients.keys import ClientKey, key_id
from balancer.clients.store import add_key, revoke_key, store_in
from balancer.lifecycle.events import LifecycleEvent, LifecycleEvents
from edgeserve.config.settings import BalancerSettings
from edgeserve.http.server.aiohttp_routes import AioHandler
from edgeserve.security.tokens import new_secret
from tests.balancer.endpoint import endpoint
from tests.fakes.node import fake_node
from tests.patience import PATIENCE


def loaded(at: float) -> LifecycleEvent:
    return LifecycleEvent(at=at, kind="loaded", node="pi", model="small:Q4_1")


@asynccontextmanager
async def followed(
    events: LifecycleEvents, state_dir: Path
) -> AsyncGenerator[aiohttp.StreamReader]:
    with admitting(BalancerSettings(state_dir=state_dir)) as clients:
        async with _followed(event_stream(events, clients)) as stream:
            yield stream


@asynccontextmanager
async def _followed(handler: AioHandler) -> AsyncGenerator[aiohttp.StreamReader]:
    app = web.Application()
    app.add_routes([web.get("/events", handler)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with (
            asyncio.timeout(PATIENCE),
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{runner.addresses[0][1]}/events") as answer,
        ):
            yield answer.content
    finally:
        await runner.cleanup()


async def test_a_follower_gets_the_latest_events_and_each_new_one(
    tmp_path: Path,
) -> None:
    events = LifecycleEvents()
    events.append(loaded(1.0))
    async with followed(events, tmp_path) as stream:
        first = await stream.readuntil(b"\n\n")
        events.append(loaded(2.0))
        second = await stream.readuntil(b"\n\n")

    assert first.startswith(b'event: loaded\ndata: {"at":1.0,')
    assert b'"at":2.0' in second


async def test_a_quiet_stream_shows_that_it_lives(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("balancer.api.events.BEAT_SECONDS", 0.01)
    events = LifecycleEvents()
    async with followed(events, tmp_path) as stream:
        beats = [await stream.readuntil(b"\n\n") for _ in range(3)]
        events.append(loaded(1.0))
        while (after := await stream.readuntil(b"\n\n")).startswith(b":"):
            pass

    assert set(beats) == {b": nothing new\n\n"}
    assert b'"at":1.0' in after


async def test_the_balancer_offers_the_stream() -> None:
    async with (
        endpoint() as balancer,
        balancer.session.get("/edgeserve/v1/events") as answer,
    ):
        assert answer.content_type == "text/event-stream"


async def test_the_stream_ends_once_its_key_is_revoked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("balancer.api.events.BEAT_SECONDS", 0.01)
    secret, store = new_secret("sk"), store_in(tmp_path)
    add_key(store, ClientKey(id=key_id(secret), name="operator", admin=True))
    headers = {"authorization": f"Bearer {secret}"}
    async with (
        asyncio.timeout(PATIENCE),
        fake_node() as node,
        endpoint(node, state_dir=tmp_path) as balancer,
        balancer.session.get("/edgeserve/v1/events", headers=headers) as answer,
    ):
        await answer.content.readuntil(b"\n\n")
        revoke_key(store, "operator", time.time())
        await answer.content.read()
