"""Order routes: load, unload, and what is desired of a model."""

from __future__ import annotations

from aiohttp import web

from edgeserve.http.server.aiohttp_routes import guarded, json_response
from edgeserve.orders.engines import (
    DESIRE,
    LOAD,
    UNLOAD,
    DesiredModel,
    LoadEngine,
    UnloadEngine,
)
from edgeserve.security.tokens import Guard
from edgeserve.wire import decode
from node.lifecycle.orders import Orders

ACCEPTED = 202


def order_routes(orders: Orders, guard: Guard) -> list[web.RouteDef]:
    """Return the routes for orders; all require the fleet token."""

    async def load(request: web.Request) -> web.Response:
        order = decode(await request.read(), LoadEngine)
        return json_response(await orders.load(order), ACCEPTED)

    async def unload(request: web.Request) -> web.Response:
        order = decode(await request.read(), UnloadEngine)
        return json_response(await orders.unload(order), ACCEPTED)

    async def desire(request: web.Request) -> web.Response:
        said = decode(await request.read(), DesiredModel)
        return json_response(await orders.desire(said))

    return [
        web.post(LOAD, guarded(guard.check, load)),
        web.post(UNLOAD, guarded(guard.check, unload)),
        web.post(DESIRE, guarded(guard.check, desire)),
    ]
