"""Listen on one port: inference on our own protocol, everything else on aiohttp."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.typedefs import Middleware

from edgeserve.errors import FleetBusy, TooLarge, TooSlow
from edgeserve.relay.connection import Connection
from edgeserve.relay.cors import Cors
from edgeserve.relay.crossing import crossing, crossing_pages
from edgeserve.relay.exchange import Handler
from edgeserve.relay.leave import Leave
from edgeserve.relay.limits import Limits
from edgeserve.relay.listen import BACKLOG
from edgeserve.relay.plain import AioHandler, as_response, dispatching
from edgeserve.relay.room import Room
from edgeserve.relay.site import Admit, Client
from edgeserve.relay.sweep import Sweep

DEFAULT_LIMITS = Limits()

OWN_BODIES = 2**20
"""Largest body of a request that aiohttp answers, in bytes: ours are small."""

FLUSH_SECONDS = 1.0
"""How long last bytes may take to leave, once every answer is complete."""


def anyone(headers: Mapping[str, str]) -> None:
    """Let every request send its body."""
    del headers


@asynccontextmanager
async def listen(
    sock: socket.socket,
    handler: Handler,
    handled: Callable[[str], bool],
    routes: Iterable[web.AbstractRouteDef],
    *,
    body_limit: int,
    limits: Limits = DEFAULT_LIMITS,
    admit: Admit = anyone,
    cors: Cors | None = None,
    stop_seconds: float = 1.0,
    tls: ssl.SSLContext | None = None,
    leave: Leave | None = None,
) -> AsyncGenerator[int]:
    """Serve on `sock`, which is closed at the end; yields its port.

    Requests whose path is `handled` go to `handler`, every other one to `routes`.
    `body_limit` is in bytes. Errors of our own tree become their own answers. A body
    that is still to come is read only where `admit` lets the header fields pass. Web
    pages may ask as `cors` says.
    At the end, running answers have `stop_seconds` to finish. `leave` lets another
    process go on with the port before that.
    """
    loop = asyncio.get_running_loop()
    if cors is not None:
        handler = crossing(handler, cors)
    async with _aiohttp(handler, handled, routes, body_limit, limits, cors) as guests:
        port = _Port(handler, handled, admit, body_limit, limits, guests)
        server = await loop.create_server(
            port.connection,
            sock=sock,
            backlog=BACKLOG,
            ssl=tls,
            ssl_handshake_timeout=limits.head_seconds if tls else None,
        )
        if leave is not None:
            leave.begin = lambda: port.leave(server, leave.left)
        try:
            yield sock.getsockname()[1]
        finally:
            server.close()
            await port.stop(stop_seconds)
            sock.close()


@asynccontextmanager
async def _aiohttp(
    handler: Handler,
    handled: Callable[[str], bool],
    routes: Iterable[web.AbstractRouteDef],
    body_limit: int,
    limits: Limits,
    cors: Cors | None,
) -> AsyncGenerator[web.Server]:
    """Run an aiohttp application that listens nowhere: it is handed connections."""
    size = min(body_limit, OWN_BODIES)
    app = web.Application(
        client_max_size=size,
        middlewares=[
            _one_each(limits.body_seconds),
            *([crossing_pages(cors)] if cors is not None else []),
            dispatching(handler, handled, size),
        ],
    )
    app.add_routes(routes)
    runner = web.AppRunner(
        app,
        handler_cancellation=True,
        access_log=None,
        shutdown_timeout=1.0,
        keepalive_timeout=limits.idle_seconds,
    )
    await runner.setup()
    try:
        assert runner.server is not None  # noqa: S101 - for the type
        yield runner.server
    finally:
        await runner.cleanup()


def _one_each(body_seconds: float) -> Middleware:
    """Answer one request a connection, and do not wait for ever for its body.

    aiohttp has no limit on how slowly a second head may come, or a body.
    """

    @web.middleware
    async def once(request: web.Request, handler: AioHandler) -> web.StreamResponse:
        try:
            if request.can_read_body:
                async with asyncio.timeout(body_seconds):
                    await request.read()
        except TimeoutError:
            response: web.StreamResponse = as_response(
                TooSlow(body_seconds), request.path
            )
        except web.HTTPRequestEntityTooLarge:
            response = as_response(TooLarge(OWN_BODIES), request.path)
        else:
            response = await handler(request)
        response.force_close()
        return response

    return once


class _Port:
    """See `Site`."""

    def __init__(
        self,
        handler: Handler,
        handled: Callable[[str], bool],
        admit: Admit,
        body_limit: int,
        limits: Limits,
        guests: Callable[[], asyncio.Protocol],
    ) -> None:
        self.handler = handler
        self.handled = handled
        self.admit = admit
        self.body_limit = body_limit
        self.limits = limits
        self.room = Room(limits)
        self.leaving = False
        self._guests = guests
        self._loop = asyncio.get_running_loop()
        self._sweep = Sweep(limits.sweep_seconds)
        self._clients: set[Client] = set()
        self._addresses: Counter[str] = Counter()
        self._empty = asyncio.Event()
        self._left: asyncio.Event | None = None

    def connection(self) -> Connection:
        """Make the protocol for one accepted connection."""
        return Connection(self, self._loop)

    def arrived(self, client: Client) -> None:
        """See `Site.arrived`."""
        self._clients.add(client)
        self._sweep.add(client)
        self._addresses[client.peer] += 1
        count = self._addresses[client.peer]
        if count > 2 * self.limits.per_address:
            client.transport.abort()  # not even a word: it has been told
        elif count > self.limits.per_address:
            raise FleetBusy(1, f"{client.peer} has too many connections open")

    def departed(self, client: Client) -> None:
        """See `Site.departed`."""
        self._clients.discard(client)
        self._sweep.discard(client)
        self._addresses[client.peer] -= 1
        if not self._addresses[client.peer]:
            del self._addresses[client.peer]
        if self.leaving and not self._clients:
            self._empty.set()
            if self._left is not None:
                self._left.set()

    def hand_over(self, client: Client, data: bytes) -> None:
        """See `Site.hand_over`."""
        self._clients.discard(client)
        self._sweep.discard(client)
        guest = _Guest(self._guests(), lambda: self.departed(client))
        transport = client.transport
        transport.set_protocol(guest)
        guest.connection_made(transport)
        guest.data_received(data)

    def leave(self, server: asyncio.Server, left: asyncio.Event) -> None:
        """Accept nothing new; let each connection end with its next answer."""
        server.close()
        self.leaving = True
        self._left = left
        if not self._clients:
            left.set()

    async def stop(self, seconds: float) -> None:
        """Close what is idle, let answers finish for some seconds, cut the rest."""
        self.leaving = True
        for client in tuple(self._clients):
            client.retire()
        tasks = {each.task for each in self._clients if each.task is not None}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
        await self._emptied()
        self._sweep.stop()

    async def _emptied(self) -> None:
        for client in tuple(self._clients):
            client.retire()
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                while self._clients:
                    self._empty.clear()
                    await self._empty.wait()
        except TimeoutError:
            for client in tuple(self._clients):
                client.transport.abort()


class _Guest(asyncio.Protocol):
    """A connection that aiohttp has taken over, counted as ours to its end."""

    def __init__(self, inner: asyncio.Protocol, left: Callable[[], None]) -> None:
        self._inner = inner
        self._left = left
        # The loop then calls aiohttp directly.
        self.connection_made = inner.connection_made  # type: ignore[method-assign]
        self.data_received = inner.data_received  # type: ignore[method-assign]
        self.eof_received = inner.eof_received  # type: ignore[method-assign]
        self.pause_writing = inner.pause_writing  # type: ignore[method-assign]
        self.resume_writing = inner.resume_writing  # type: ignore[method-assign]

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell both."""
        self._inner.connection_lost(exc)
        self._left()
