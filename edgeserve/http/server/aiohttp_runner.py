"""aiohttp runner: aiohttp without a port; our server hands it single requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager

from aiohttp import web

from edgeserve.http.server.aiohttp_routes import AioHandler, rendering
from edgeserve.http.server.context import Client
from edgeserve.http.server.cors import Cors, pages_with_cors
from edgeserve.http.server.limits import OWN_BODIES, Limits


@asynccontextmanager
async def page_server(
    routes: Iterable[web.AbstractRouteDef], limits: Limits, cors: Cors | None
) -> AsyncGenerator[web.Server]:
    """Run an aiohttp application that answers `routes`.

    Each request has been read, checked against the limits and written anew; so its own
    limits need only be at least as wide.
    """
    app = web.Application(
        client_max_size=OWN_BODIES + 1,
        middlewares=[
            _one_each,
            *([pages_with_cors(cors)] if cors is not None else []),
            rendering(OWN_BODIES),
        ],
    )
    app.add_routes(routes)
    runner = web.AppRunner(
        app,
        handler_cancellation=True,
        access_log=None,
        shutdown_timeout=1.0,
        keepalive_timeout=limits.idle_seconds,
        max_line_size=2 * limits.head_bytes,
        max_field_size=2 * limits.head_bytes,
        auto_decompress=False,
    )
    await runner.setup()
    try:
        assert runner.server is not None  # noqa: S101 - for the type
        yield runner.server
    finally:
        await runner.cleanup()


@web.middleware
async def _one_each(request: web.Request, handler: AioHandler) -> web.StreamResponse:
    """Answer one request a connection: our limits do not cover a second one."""
    response = await handler(request)
    response.force_close()
    return response


class PageConnection(asyncio.Protocol):
    """A connection that aiohttp answers; the port counts it until it ends."""

    def __init__(self, inner: asyncio.Protocol, client: Client) -> None:
        self._inner = inner
        self._client = client
        # The loop then calls aiohttp directly.
        self.connection_made = inner.connection_made  # type: ignore[method-assign]
        self.eof_received = inner.eof_received  # type: ignore[method-assign]
        self.pause_writing = inner.pause_writing  # type: ignore[method-assign]
        self.resume_writing = inner.resume_writing  # type: ignore[method-assign]

    def ask(self, request: bytes) -> None:
        """Hand the request to aiohttp."""
        self._inner.data_received(request)

    def data_received(self, data: bytes) -> None:
        """Drop what comes after the one request."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell aiohttp and the port."""
        self._inner.connection_lost(exc)
        self._client.connection_lost(exc)
