"""aiohttp routes: error answers of the routes that aiohttp serves."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from edgeserve.errors import (
    BadRequest,
    EdgeserveError,
    TooLarge,
    UnknownRoute,
    WrongMethod,
)
from edgeserve.http.server.context import Admit
from edgeserve.openai import ROUTES, rendered
from edgeserve.runtime.memory import drop_tracebacks
from edgeserve.suggestions import LONGEST_PATH, hint
from edgeserve.wire import encode

log = logging.getLogger(__name__)


AioHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def rendering(body_limit: int) -> Middleware:
    """Render every error as one of our own tree; `body_limit` is in bytes."""

    @web.middleware
    async def render(request: web.Request, handler: AioHandler) -> web.StreamResponse:
        try:
            return await handler(request)
        except EdgeserveError as error:
            return as_response(error, request.path)
        except web.HTTPException as error:
            drop_tracebacks(error)  # aiohttp keeps it with the request
            if error.status < 400:
                raise
            return as_response(_ours(error, request, body_limit), request.path)
        except Exception as error:
            if isinstance(error, ConnectionError) and _has_gone(request):
                return web.Response()  # it has gone; aiohttp would log a fault
            log.exception("%s %s failed", request.method, request.path)
            broken = EdgeserveError("internal error; see the log")
            return as_response(broken, request.path)

    return render


def _has_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _ours(
    error: web.HTTPException, request: web.Request, body_limit: int
) -> EdgeserveError:
    """Translate an error of aiohttp's."""
    match error:
        case web.HTTPMethodNotAllowed():
            return WrongMethod(request.method, request.path, error.allowed_methods)
        case web.HTTPNotFound():
            return _unknown(request)
        case web.HTTPRequestEntityTooLarge():
            return TooLarge(body_limit)
        case web.HTTPClientError():
            return BadRequest(error.reason)
        case _:
            return EdgeserveError(error.reason)


def _unknown(request: web.Request) -> UnknownRoute:
    own = [each.canonical for each in request.app.router.resources()]
    path = request.path[:LONGEST_PATH]
    return UnknownRoute(request.method, path, hint(path, [*ROUTES, *own]))


def guarded(check: Admit, handler: AioHandler) -> AioHandler:
    """Let `check` see the header fields of each request before `handler` does."""

    async def checked(request: web.Request) -> web.StreamResponse:
        check(request.headers)
        return await handler(request)

    return checked


def asked_from(request: web.Request) -> str:
    """Return the address that a request comes from; an IPv4 one in its usual form."""
    return (request.remote or "").removeprefix("::ffff:")


def json_response(value: object, status: int = 200) -> web.Response:
    """Encode a value as the response."""
    return web.Response(
        body=encode(value), status=status, content_type="application/json"
    )


def as_response(error: EdgeserveError, path: str) -> web.Response:
    """Render an error as an aiohttp response."""
    return web.Response(
        status=error.status, body=rendered(error, path), headers=error.headers()
    )
