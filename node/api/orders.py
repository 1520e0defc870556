"""Order routes: load, unload, what is desired of a model, and sleep."""

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
from edgeserve.orders.sleep import SLEEP, SleepOrder
from edgeserve.security.tokens import Guard
from edgeserve.wire import decode
from node.lifecycle.orders import Orders
from node.lifecycle.sleeping import Sleeper

ACCEPTED = 202


def order_routes(orders: Orders, sleeper: Sleeper, guard: Guard) -> list[web.RouteDef]:
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

    async def sleep(request: web.Request) -> web.Response:
        said = decode(await request.read(), SleepOrder)
        return json_response(await sleeper.order(said), ACCEPTED)

    return [
        web.post(SLEEP, guarded(guard.check, sleep)),
        web.post(LOAD, guarded(guard.check, load)),
        web.post(UNLOAD, guarded(guard.check, unload)),
        web.post(DESIRE, guarded(guard.check, desire)),
    ]
