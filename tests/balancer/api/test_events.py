"""The event stream of the balancer: what was, then what happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from balancer.api.events import event_stream
from balancer.lifecycle.events import LifecycleEvent, LifecycleEvents
from tests.balancer.endpoint import endpoint
from tests.patience import PATIENCE


def loaded(at: float) -> LifecycleEvent:
    return LifecycleEvent(at=at, kind="loaded", node="pi", model="small:Q4_1")


@asynccontextmanager
async def followed(events: LifecycleEvents) -> AsyncGenerator[aiohttp.StreamReader]:
    app = web.Application()
    app.add_routes([web.get("/events", event_stream(events))])
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


async def test_a_follower_gets_the_latest_events_and_each_new_one() -> None:
    events = LifecycleEvents()
    events.append(loaded(1.0))
    async with followed(events) as stream:
        first = await stream.readuntil(b"\n\n")
        events.append(loaded(2.0))
        second = await stream.readuntil(b"\n\n")

    assert first.startswith(b'event: loaded\ndata: {"at":1.0,')
    assert b'"at":2.0' in second


async def test_a_quiet_stream_shows_that_it_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("balancer.api.events.BEAT_SECONDS", 0.01)
    events = LifecycleEvents()
    async with followed(events) as stream:
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
