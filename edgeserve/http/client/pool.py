"""Connection pool: reuse upstream connections, close them before the server does.

llama.cpp closes a connection after 5 s without a request, and after 100 requests.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from math import inf
from types import TracebackType

from edgeserve.errors import NodeLost, NoFiles, NotReached, in_words
from edgeserve.http.channel.opening import FleetChannel
from edgeserve.http.client.answer import UpstreamResponse
from edgeserve.http.client.connection import UpstreamConnection
from edgeserve.http.heads import fields, written
from edgeserve.http.sockets import is_shortage, notice_silence
from edgeserve.http.types import Origin
from edgeserve.runtime.clock import Ticker

IDLE_SECONDS = 4.0
"""How long a connection is kept without a request."""

CHANNEL_IDLE_SECONDS = 60.0
"""The same for connections to our own processes, which are dearer to make."""

MOST_USES = 90
"""Requests on one connection to an engine."""


class _Server:
    """One server: its address, and its idle connections, the latest last."""

    __slots__ = ("host_line", "idle", "origin")

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        host = origin.host.partition("%")[0]  # a scope is valid on this machine only
        address = Origin(host, origin.port, origin.tls).url.partition("://")[2]
        self.host_line = f"host: {address}"
        self.idle: list[UpstreamConnection] = []


class Pool:
    """See `Upstream`."""

    def __init__(
        self,
        connect_seconds: float,
        tls: ssl.SSLContext | None,
        channel: FleetChannel | None,
    ) -> None:
        self._connect_seconds = connect_seconds
        self._tls = tls
        self._channel = channel
        self._idle_seconds = CHANNEL_IDLE_SECONDS if channel else IDLE_SECONDS
        self._most_uses = inf if channel else MOST_USES
        self._loop = asyncio.get_running_loop()
        self._servers: dict[Origin, _Server] = {}
        self._trusted: dict[Origin, ssl.SSLContext] = {}
        self._connections: set[UpstreamConnection] = set()
        self._ticker = Ticker(0.5)

    def ask(
        self,
        origin: Origin,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes = b"",
    ) -> _Exchange:
        """See `Upstream.ask`."""
        server = self._servers.get(origin)
        if server is None:
            server = self._servers[origin] = _Server(origin)
        lines = [f"{method} {target} HTTP/1.1", server.host_line, *fields(headers)]
        if body or method not in {"GET", "HEAD", "DELETE", "OPTIONS"}:
            lines.append(f"content-length: {len(body)}")
        return _Exchange(self, server, method, written(lines), body)

    def trust(self, origin: Origin, tls: ssl.SSLContext | None) -> None:
        """Verify the server at `origin` by a context of its own; None: as the others.

        Idle connections, which another one has verified, are closed.
        """
        before = self._trusted.pop(origin, None)
        if tls is not None:
            self._trusted[origin] = tls
        if tls is not before and (server := self._servers.get(origin)):
            for connection in tuple(server.idle):
                connection.abort()
            server.idle.clear()

    def take(self, idle: list[UpstreamConnection]) -> UpstreamConnection | None:
        """Take the connection that was used last, if one is still good."""
        oldest = self._loop.time() - self._idle_seconds
        while idle:
            connection = idle.pop()
            if connection.idle_since > oldest and not connection.closed:
                return connection
            connection.abort()
        return None

    def give_back(
        self, connection: UpstreamConnection, idle: list[UpstreamConnection]
    ) -> None:
        """Keep a connection after its exchange, or close it."""
        if not connection.reusable or connection.uses >= self._most_uses:
            connection.abort()
            return
        connection.rest(self._loop.time())
        idle.append(connection)
        self._ticker.add(self)

    async def connect(self, origin: Origin) -> UpstreamConnection:
        """Open a connection. Raises NotReached."""
        try:
            async with asyncio.timeout(self._connect_seconds):
                connection = await self._opened(origin)
        except TimeoutError as error:
            raise NotReached(
                f"{origin.url} took no connection within {self._connect_seconds:g} s"
            ) from error
        except (OSError, UnicodeError) as error:
            if isinstance(error, OSError) and is_shortage(error):
                raise NoFiles("too many files are open here; come back soon") from error
            raise NotReached(
                f"{origin.url} did not answer: {_reason(error)}"
            ) from error
        notice_silence(connection.transport)
        self._connections.add(connection)
        return connection

    async def _opened(self, origin: Origin) -> UpstreamConnection:
        try:
            return await self._connected(origin)
        except OSError as error:
            if not (is_shortage(error) and self._close_idle()):
                raise
        await asyncio.sleep(0)  # some event loops close in their next round
        return await self._connected(origin)

    async def _connected(self, origin: Origin) -> UpstreamConnection:
        def made() -> UpstreamConnection:
            return UpstreamConnection(origin, self._loop, self._closed)

        if self._channel is not None:
            return await self._channel.connect(origin, made)
        connecting = self._loop.create_connection(
            made, origin.host, origin.port, ssl=self._tls_for(origin)
        )
        return (await connecting)[1]

    def _close_idle(self) -> bool:
        """Close the idle connections; return whether there were any."""
        idle = [
            connection
            for server in self._servers.values()
            for connection in server.idle
        ]
        for connection in idle:
            connection.abort()
        return bool(idle)

    def tick(self, now: float) -> None:
        """Close connections that have been idle too long."""
        some_left = False
        for server in self._servers.values():
            idle = server.idle
            while idle and idle[0].idle_since <= now - self._idle_seconds:
                idle.pop(0).abort()
            some_left = some_left or bool(idle)
        if not some_left:
            self._ticker.discard(self)

    def close(self) -> None:
        """Close every connection at once."""
        self._ticker.stop()
        for connection in tuple(self._connections):
            connection.abort()

    def _closed(self, connection: UpstreamConnection) -> None:
        self._connections.discard(connection)
        server = self._servers.get(connection.origin)  # none, where no `ask` made it
        if server is not None and connection in server.idle:
            server.idle.remove(connection)

    def _tls_for(self, origin: Origin) -> ssl.SSLContext | None:
        if not origin.tls:
            return None
        if (own := self._trusted.get(origin)) is not None:
            return own
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


class _Exchange:
    """One request, for the length of a block."""

    __slots__ = ("_body", "_connection", "_head", "_method", "_pool", "_server")

    def __init__(
        self, pool: Pool, server: _Server, method: str, head: bytes, body: bytes
    ) -> None:
        self._pool = pool
        self._server = server
        self._method = method
        self._head = head
        self._body = body
        self._connection: UpstreamConnection | None = None

    async def __aenter__(self) -> UpstreamResponse:
        pool, server = self._pool, self._server
        connection = pool.take(server.idle) or await pool.connect(server.origin)
        try:
            return await self._send(connection)
        except NodeLost:
            if not connection.stale:
                raise
        return await self._send(await pool.connect(server.origin))

    async def _send(self, connection: UpstreamConnection) -> UpstreamResponse:
        self._connection = connection
        try:
            return await connection.ask(self._method, self._head, self._body)
        except BaseException:
            connection.abort()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._connection is not None:
            self._pool.give_back(self._connection, self._server.idle)


@asynccontextmanager
async def upstream(
    *,
    connect_seconds: float,
    tls: ssl.SSLContext | None = None,
    channel: FleetChannel | None = None,
) -> AsyncGenerator[Pool]:
    """Hold connections to servers; `tls` verifies those that use it.

    With a `channel`, all of them are nodes of the fleet and prove it.

    No deadline on answers: a slow machine is not a dead one.
    """
    pool = Pool(connect_seconds, tls, channel)
    try:
        yield pool
    finally:
        pool.close()


def _reason(error: OSError | UnicodeError) -> str:
    """Return the same words for a fault on every event loop."""
    if isinstance(error, ssl.SSLError):
        return getattr(error, "verify_message", None) or error.reason or str(error)
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number and number > 0 else in_words(error)
