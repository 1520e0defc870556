"""Event stream of the balancer: loads and unloads of engines, as they happen."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiohttp import web

from balancer.clients.admission import Admission
from balancer.lifecycle.events import LifecycleEvents
from edgeserve.http.server.aiohttp_routes import AioHandler
from edgeserve.http.sse import write_event
from edgeserve.wire import encode

BEAT_SECONDS = 10.0
"""How often something is sent, so that a follower who has gone is noticed."""

BEAT = b": nothing new\n\n"

WRITE_SECONDS = 30.0
"""How long a follower may read nothing before its stream is closed."""

HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # else nginx holds events back
}


def event_stream(events: LifecycleEvents, clients: Admission) -> AioHandler:
    """Return the handler that streams the latest events, then each new one.

    It ends, at the next beat at the latest, when the follower's key no longer counts.
    """

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        seen = 0
        while clients.still_admin(request.headers):
            seen, news = events.since(seen)
            frames = [write_event(encode(each), each.kind) for each in news]
            async with asyncio.timeout(WRITE_SECONDS):
                await response.write(b"".join(frames) or BEAT)
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS):
                    await events.more_than(seen)
        return response

    return stream
