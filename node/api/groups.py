"""Group routes: orders of balancers, and what heads and workers say to each other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing

from aiohttp import web

from edgeserve.errors import WrongMethod
from edgeserve.http.client.raw import Connecting
from edgeserve.http.server.aiohttp_routes import guarded, json_response
from edgeserve.http.server.response import upgraded
from edgeserve.http.types import Handler, Request, Response
from edgeserve.orders.groups import (
    DISSOLVE,
    ECHO,
    FORM,
    LINK,
    RPC,
    WORKERS,
    DissolveGroup,
    FormGroup,
    HostWorker,
    MeasureLink,
    OpenTunnel,
)
from edgeserve.security.tokens import Guard
from edgeserve.wire import decode
from node.groups.link import echo, measured
from node.groups.workers import Workers
from node.lifecycle.groups import GroupOrders

ACCEPTED, DONE = 202, 204

STREAMS = (WORKERS, RPC, ECHO)
"""Paths whose connections carry raw bytes afterwards."""


def group_routes(
    orders: GroupOrders, nodes: Connecting, guard: Guard
) -> list[web.RouteDef]:
    """Return the routes for orders; all require the fleet token."""

    async def form(request: web.Request) -> web.Response:
        order = decode(await request.read(), FormGroup)
        return json_response(await orders.form(order), ACCEPTED)

    async def dissolve(request: web.Request) -> web.Response:
        await orders.dissolve(decode(await request.read(), DissolveGroup))
        return web.Response(status=DONE)

    async def link(request: web.Request) -> web.Response:
        order = decode(await request.read(), MeasureLink)
        return json_response(await measured(order, nodes))

    return [
        web.post(FORM, guarded(guard.check, form)),
        web.post(DISSOLVE, guarded(guard.check, dissolve)),
        web.post(LINK, guarded(guard.check, link)),
    ]


class GroupStreams:
    """Answers other nodes, and leaves all other requests to another handler."""

    def __init__(
        self,
        orders: GroupOrders,
        workers: Workers,
        guard: Guard,
        otherwise: Handler,
    ) -> None:
        self._orders, self._workers = orders, workers
        self._guard, self._otherwise = guard, otherwise
        self._answers: Mapping[str, Callable[[Request, Response], Awaitable[None]]] = {
            WORKERS: self._work,
            RPC: self._tunnel,
            ECHO: self._echo,
        }

    async def __call__(self, request: Request, reply: Response) -> None:
        """Answer 101, and go on with raw bytes."""
        answer = self._answers.get(request.path)
        if answer is None:
            await self._otherwise(request, reply)
            return
        self._guard.check(request.headers)
        if request.method != "POST":
            raise WrongMethod(request.method, request.path, ["POST"])
        await answer(request, reply)

    async def _work(self, request: Request, reply: Response) -> None:
        """Be a worker until the connection ends, or the worker."""
        order = decode(request.body, HostWorker)
        async with self._orders.hosting(order) as asked:
            stream = upgraded(reply)
            await self._workers.serve(asked.worker, stream, asked.threads, asked.room)

    async def _tunnel(self, request: Request, reply: Response) -> None:
        """Join the connection with one to the worker's process."""
        worker = self._workers.find(decode(request.body, OpenTunnel).key)
        with closing(await self._workers.connected(worker)) as inner:
            outer = upgraded(reply)
            with self._workers.tunnel(worker, outer, inner):
                await outer.over()

    async def _echo(self, _: Request, reply: Response) -> None:
        await echo(upgraded(reply))
