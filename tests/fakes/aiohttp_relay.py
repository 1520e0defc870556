"""aiohttp relay: the server and client of `edgeserve.http`, on aiohttp alone.

A reference for tests and benchmarks: both relays must keep the same promises.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Middleware

from edgeserve.errors import EdgeserveError, NodeLost
from edgeserve.http.heads import HOP_BY_HOP
from edgeserve.http.server.aiohttp_routes import AioHandler, rendering
from edgeserve.http.types import Answer, Handler, Origin, Request, Response


def passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    """Keep the header fields that may travel; names in lower case."""
    lower = {name.lower(): value for name, value in headers.items()}
    return {name: value for name, value in lower.items() if name not in HOP_BY_HOP}


@asynccontextmanager
async def listen(
    sock: socket.socket,
    handler: Handler,
    handled: Callable[[str], bool],
    routes: Iterable[web.AbstractRouteDef],
    *,
    body_limit: int,
) -> AsyncGenerator[int]:
    """Serve on `sock`, which is closed at the end; yields its port.

    Requests whose path is `handled` go to `handler`, every other one to `routes`.
    `body_limit` is in bytes. Errors of our own tree become their own answers.
    """
    app = web.Application(
        client_max_size=body_limit,
        middlewares=[rendering(body_limit), _dispatching(handler, handled)],
    )
    app.add_routes(routes)
    runner = web.AppRunner(
        app, handler_cancellation=True, access_log=None, shutdown_timeout=1.0
    )
    await runner.setup()
    try:
        await web.SockSite(runner, sock).start()
        yield sock.getsockname()[1]
    finally:
        await runner.cleanup()


def _dispatching(relayed: Handler, handled: Callable[[str], bool]) -> Middleware:
    """Let `relayed` answer what is `handled`."""

    @web.middleware
    async def dispatch(request: web.Request, handler: AioHandler) -> web.StreamResponse:
        if handled(request.path):
            return await _relayed(request, relayed)
        return await handler(request)

    return dispatch


async def _relayed(request: web.Request, handler: Handler) -> web.StreamResponse:
    reply = _AioReply(request)
    headers = {name.lower(): value for name, value in request.headers.items()}
    asked = Request(
        method=request.method,
        path=request.path,
        query=request.rel_url.raw_query_string,
        headers=headers,
        body=await request.read(),
        peer=request.remote or "",
    )
    try:
        await handler(asked, reply)
    except EdgeserveError:
        if not reply.started or request.transport is None:
            raise
        request.transport.abort()  # a cut answer must not look like a whole one
    return reply.response


class _AioReply(Response):
    """A reply on an aiohttp response."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.response: web.StreamResponse = web.Response(status=500)
        self._started = False
        self._writing = False

    @property
    def started(self) -> bool:
        return self._started

    @property
    def paused(self) -> bool:
        return self._writing

    @property
    def missed(self) -> bool:
        return False  # aiohttp does not tell

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        self.response = web.StreamResponse(status=status, headers=passed_on(headers))
        self._started = True
        await self.response.prepare(self._request)

    async def write(self, data: bytes) -> None:
        self._writing = True  # it waits, if at all, for the client's buffer
        try:
            await self.response.write(data)
        finally:
            self._writing = False

    async def finish(self) -> None:
        await self.response.write_eof()

    async def send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.response = web.Response(
            status=status, headers=passed_on(headers), body=body
        )
        self._started = True


class PlainUpstream:
    """Asks servers with one aiohttp session."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    @asynccontextmanager
    async def ask(
        self,
        origin: Origin,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes = b"",
    ) -> AsyncGenerator[Answer]:
        """See `Upstream.ask`."""
        try:
            response = await self._session.request(
                method, origin.url + target, headers=passed_on(headers), data=body
            )
        except (OSError, aiohttp.ClientError) as error:
            raise NodeLost(f"{origin.url} did not answer: {_said(error)}") from error
        try:
            yield _AioAnswer(response, origin)
        finally:
            # A body read to its end has given its connection back by now; anything
            # else must be cut, which is how llama.cpp learns that nobody listens.
            response.close()


class _AioAnswer(Answer):
    """An answer on an aiohttp response."""

    id = ""

    def __init__(self, response: aiohttp.ClientResponse, origin: Origin) -> None:
        self._response = response
        self._origin = origin
        self.status = response.status
        self.headers = {k.lower(): v for k, v in response.headers.items()}

    async def read(self) -> bytes:
        try:
            return await self._response.read()
        except (OSError, aiohttp.ClientError) as error:
            raise self._lost(error) from error

    async def chunk(self) -> bytes:
        try:
            return await self._response.content.readany()
        except (OSError, aiohttp.ClientError) as error:
            raise self._lost(error) from error

    async def pump(self, reply: Response, observe: Callable[[bytes], None]) -> None:
        while piece := await self.chunk():
            observe(piece)
            await reply.write(piece)

    async def pump_filtered(
        self, reply: Response, filter_: Callable[[bytes], bytes]
    ) -> None:
        while piece := await self.chunk():
            if passed := filter_(piece):
                await reply.write(passed)

    def _lost(self, error: Exception) -> NodeLost:
        return NodeLost(f"{self._origin.url} broke off: {_said(error)}")


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


@asynccontextmanager
async def upstream(*, connect_seconds: float) -> AsyncGenerator[PlainUpstream]:
    """Hold a session for asking servers.

    No deadline on answers: a slow machine is not a dead one. Idle connections are
    dropped before llama.cpp's own 5 s limit.
    """
    timeout = aiohttp.ClientTimeout(
        total=None, connect=None, sock_connect=connect_seconds
    )
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4.0)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, auto_decompress=False
    ) as session:
        yield PlainUpstream(session)
