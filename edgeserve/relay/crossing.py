"""Let pages of other origins ask: answer their browsers, mark what they get."""

from __future__ import annotations

from collections.abc import Awaitable

from aiohttp import web
from aiohttp.typedefs import Middleware

from edgeserve.relay.cors import Cors
from edgeserve.relay.exchange import Handler, Reply, Request
from edgeserve.relay.plain import AioHandler
from edgeserve.relay.reply import ClientReply

PREFLIGHT = "access-control-request-method"
COVERED = ("/v1/", "/models")
"""Of the routes that aiohttp answers; the rest is not for web pages."""

APART = "/v1/health"


def crossing(handler: Handler, cors: Cors) -> Handler:
    """Wrap a handler; requests without an origin pass as they are."""

    def cross(request: Request, reply: Reply) -> Awaitable[None]:
        origin = request.headers.get("origin")
        if origin is None:
            return handler(request, reply)
        return marked(request, reply, origin)

    async def marked(request: Request, reply: Reply, origin: str) -> None:
        if request.method == "OPTIONS" and PREFLIGHT in request.headers:
            await reply.send(204, cors.preflight(request.headers), b"")
            return
        if isinstance(reply, ClientReply):
            reply.also = cors.headers(origin)
        await handler(request, reply)

    return cross


def crossing_pages(cors: Cors) -> Middleware:
    """Do the same for those of aiohttp's routes that are covered."""

    @web.middleware
    async def cross(request: web.Request, handler: AioHandler) -> web.StreamResponse:
        origin = request.headers.get("origin")
        covered = request.path.startswith(COVERED) and request.path != APART
        if origin is None or not covered:
            return await handler(request)
        if request.method == "OPTIONS" and PREFLIGHT in request.headers:
            asked = {name.lower(): value for name, value in request.headers.items()}
            return web.Response(status=204, headers=cors.preflight(asked))
        response = await handler(request)
        response.headers.update(cors.headers(origin))
        return response

    return cross
