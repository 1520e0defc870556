"""CORS: which web pages may send requests, and the headers that allow it.

A browser sends a page's request to any address, but shows the page the answer only if
the answer allows its origin. llama.cpp allows every origin.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Middleware

from edgeserve.http.server.aiohttp_routes import AioHandler
from edgeserve.http.server.response import ServerResponse
from edgeserve.http.types import Handler, Request, Response
from edgeserve.security.tokens import is_foreign

ANY = "*"
DAY = "86400"

EXPOSED = (
    "x-edgeserve-request-id, x-edgeserve-node, x-edgeserve-model,"
    " x-edgeserve-attempts, x-edgeserve-route, x-edgeserve-route-reason,"
    " x-edgeserve-ignored, retry-after, x-ratelimit-limit-requests,"
    " x-ratelimit-remaining-requests, x-ratelimit-reset-requests,"
    " x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens"
)


@dataclass(frozen=True)
class Cors:
    """`origins` are allowed by name, `*` for all; `here` allows this machine's pages.

    With `here`, programs and extensions are allowed too: their origins are no sites.
    """

    origins: frozenset[str] = frozenset()
    here: bool = True

    def allows(self, origin: str) -> bool:
        """Whether pages of `origin`, such as `https://chat.example`, get answers."""
        if ANY in self.origins or origin.lower() in self.origins:
            return True
        return self.here and bool(origin) and not is_foreign(origin)

    def headers(self, origin: str) -> dict[str, str]:
        """Return the CORS fields of an answer, for an origin that may be refused."""
        if not self.allows(origin):
            return {"vary": "origin"}
        return {
            "access-control-allow-origin": origin,
            "access-control-expose-headers": EXPOSED,
            "vary": "origin",
        }

    def preflight(self, asked: Mapping[str, str]) -> dict[str, str]:
        """Return the fields that answer a browser's preflight request."""
        fields = self.headers(asked.get("origin", ""))
        if "access-control-allow-origin" in fields:
            wanted = asked.get("access-control-request-headers")
            fields |= {
                "access-control-allow-methods": "GET, POST, OPTIONS",
                "access-control-allow-headers": wanted or "authorization, content-type",
                "access-control-max-age": DAY,
            }
        return fields


PREFLIGHT = "access-control-request-method"
COVERED = ("/v1/", "/models", "/api/tags", "/api/ps", "/api/show", "/api/version")
"""Of the routes that aiohttp answers; the rest is not for web pages."""

APART = "/v1/health"


def with_cors(handler: Handler, cors: Cors) -> Handler:
    """Wrap a handler; requests without an origin are not changed."""

    def cross(request: Request, reply: Response) -> Awaitable[None]:
        origin = request.headers.get("origin")
        if origin is None:
            return handler(request, reply)
        return allowed(request, reply, origin)

    async def allowed(request: Request, reply: Response, origin: str) -> None:
        if request.method == "OPTIONS" and PREFLIGHT in request.headers:
            await reply.send(204, cors.preflight(request.headers), b"")
            return
        if isinstance(reply, ServerResponse):
            reply.cors_headers = cors.headers(origin)
        await handler(request, reply)

    return cross


def pages_with_cors(cors: Cors) -> Middleware:
    """Do the same for the covered routes of aiohttp."""

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
