"""Admin routes: report, events, log, models, health."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from aiohttp import web

from edgeserve.http.server.aiohttp_routes import asked_from, guarded, json_response
from edgeserve.network import is_own
from edgeserve.orders.log import LOG
from edgeserve.orders.waiting import WAITING, WaitingRequests
from edgeserve.security.tokens import Guard
from edgeserve.wire import CHANGES, decode
from node.api.inference import known
from node.kept_log import KeptLog
from node.state import NodeState

WRITE_SECONDS = 30.0
"""How long a follower may read nothing before its stream is closed."""


def routes(state: NodeState, guard: Guard, kept: KeptLog) -> list[web.RouteDef]:
    """Return the node's routes; all but /health require the fleet token."""

    async def report(_: web.Request) -> web.Response:
        return json_response(state.report())

    async def models(_: web.Request) -> web.Response:
        return json_response({"object": "list", "data": _models(state)})

    async def health(_: web.Request) -> web.Response:
        engines = {id_: each.state for id_, each in state.engines().items()}
        status = "draining" if state.draining else "ok"
        return json_response({"status": status, "engines": engines})

    async def events(request: web.Request) -> web.StreamResponse:
        return await _stream(request, state)

    async def log(request: web.Request) -> web.Response:
        return json_response(kept.since(request.query.get("after", "")))

    async def waiting(request: web.Request) -> web.Response:
        state.wait(decode(await request.read(), WaitingRequests))
        return web.Response(status=204)

    return [
        web.get(LOG, guarded(guard.check, log)),
        web.post(WAITING, guarded(guard.check, waiting)),
        web.get("/edgeserve/v1/node", guarded(guard.check, report)),
        web.get("/edgeserve/v1/events", guarded(guard.check, events)),
        web.get("/v1/models", guarded(guard.check, models)),
        web.get("/models", guarded(guard.check, models)),
        web.get("/health", health),
        web.get("/v1/health", health),
    ]


async def _stream(request: web.Request, state: NodeState) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={
            "content-type": "text/event-stream",
            "cache-control": "no-store",
            "x-accel-buffering": "no",  # else nginx holds events back
        }
    )
    await response.prepare(request)
    changes = CHANGES in request.query
    here = is_own(asked_from(request))
    state.followed_here += here
    try:
        async with aclosing(state.feed.follow(changes=changes)) as news:
            async for frame in news:
                async with asyncio.timeout(WRITE_SECONDS):
                    await response.write(frame)
    finally:
        state.followed_here -= here
    return response


def _models(state: NodeState) -> list[dict[str, str | int]]:
    """Return the models that are ready, in OpenAI's format."""
    engines = state.engines().values()
    ready = [each for each in engines if each.state in {"ready", "busy"}]
    return [
        {"id": name, "object": "model", "created": 0, "owned_by": "edgeserve"}
        for name in known(ready)
    ]
