"""Connection pool: keep upstream connections, and close them before the server does.

llama.cpp closes a connection after 5 s without a request, and after 100 requests.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import asynccontextmanager
from types import TracebackType

from edgeserve.errors import NodeLost, NoFiles, NotReached
from edgeserve.http.client.answer import UpstreamResponse
from edgeserve.http.client.connection import UpstreamConnection
from edgeserve.http.heads import fields, written
from edgeserve.http.sockets import is_shortage, notice_silence
from edgeserve.http.types import Origin
from edgeserve.runtime.clock import Ticker

IDLE_SECONDS = 4.0
"""How long a connection is kept without a request."""

MOST_USES = 90
"""Requests on one connection."""


class _Server:
    """One server: its address, and its idle connections, the latest last."""

    __slots__ = ("host_line", "idle", "origin")

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        host = origin.host.partition("%")[0]  # a scope means nothing to the other side
        named = Origin(host, origin.port, origin.tls).url.partition("://")[2]
        self.host_line = f"host: {named}"
        self.idle: list[UpstreamConnection] = []


class Pool:
    """See `Upstream`."""

    def __init__(self, connect_seconds: float, tls: ssl.SSLContext | None) -> None:
        self._connect_seconds = connect_seconds
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._servers: dict[Origin, _Server] = {}
        self._links: set[UpstreamConnection] = set()
        self._sweep = Ticker(0.5)

    def ask(
        self,
        origin: Origin,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes = b"",
    ) -> _Asking:
        """See `Upstream.ask`."""
        server = self._servers.get(origin)
        if server is None:
            server = self._servers[origin] = _Server(origin)
        lines = [f"{method} {target} HTTP/1.1", server.host_line, *fields(headers)]
        if body or method not in {"GET", "HEAD", "DELETE", "OPTIONS"}:
            lines.append(f"content-length: {len(body)}")
        return _Asking(self, server, method, written(lines), body)

    def take(self, idle: list[UpstreamConnection]) -> UpstreamConnection | None:
        """Take the connection that was used last, if one is still good."""
        oldest = self._loop.time() - IDLE_SECONDS
        while idle:
            link = idle.pop()
            if link.idle_since > oldest and not link.closed:
                return link
            link.abort()
        return None

    def give_back(
        self, link: UpstreamConnection, idle: list[UpstreamConnection]
    ) -> None:
        """Keep a connection after its exchange, or close it."""
        if not link.reusable or link.uses >= MOST_USES:
            link.abort()
            return
        link.rest(self._loop.time())
        idle.append(link)
        self._sweep.add(self)

    async def connect(self, origin: Origin) -> UpstreamConnection:
        """Open a connection. Raises NotReached."""
        try:
            async with asyncio.timeout(self._connect_seconds):
                link = await self._opened(origin)
        except TimeoutError as error:
            raise NotReached(
                f"{origin.url} took no connection within {self._connect_seconds:g} s"
            ) from error
        except (OSError, UnicodeError) as error:
            if isinstance(error, OSError) and is_shortage(error):
                raise NoFiles("too many files are open here; come back soon") from error
            raise NotReached(f"{origin.url} did not answer: {_said(error)}") from error
        notice_silence(link.transport)
        self._links.add(link)
        return link

    async def _opened(self, origin: Origin) -> UpstreamConnection:
        def opening() -> Coroutine[None, None, tuple[object, UpstreamConnection]]:
            return self._loop.create_connection(
                lambda: UpstreamConnection(origin, self._loop, self._closed),
                origin.host,
                origin.port,
                ssl=self._tls_for(origin),
            )

        try:
            return (await opening())[1]
        except OSError as error:
            if not (is_shortage(error) and self._spare()):
                raise
        await asyncio.sleep(0)  # some event loops close a moment later
        return (await opening())[1]

    def _spare(self) -> bool:
        """Close what rests; say whether that was any."""
        resting = [link for server in self._servers.values() for link in server.idle]
        for link in resting:
            link.abort()
        return bool(resting)

    def tick(self, now: float) -> None:
        """Close what has rested too long."""
        resting = False
        for server in self._servers.values():
            idle = server.idle
            while idle and idle[0].idle_since <= now - IDLE_SECONDS:
                idle.pop(0).abort()
            resting = resting or bool(idle)
        if not resting:
            self._sweep.discard(self)

    def close(self) -> None:
        """Close every connection, whatever it is doing."""
        self._sweep.stop()
        for link in tuple(self._links):
            link.abort()

    def _closed(self, link: UpstreamConnection) -> None:
        self._links.discard(link)
        idle = self._servers[link.origin].idle
        if link in idle:
            idle.remove(link)

    def _tls_for(self, origin: Origin) -> ssl.SSLContext | None:
        if origin.tls and self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls if origin.tls else None


class _Asking:
    """One question, for the length of a block."""

    __slots__ = ("_body", "_head", "_link", "_method", "_pool", "_server")

    def __init__(
        self, pool: Pool, server: _Server, method: str, head: bytes, body: bytes
    ) -> None:
        self._pool = pool
        self._server = server
        self._method = method
        self._head = head
        self._body = body
        self._link: UpstreamConnection | None = None

    async def __aenter__(self) -> UpstreamResponse:
        pool, server = self._pool, self._server
        link = pool.take(server.idle) or await pool.connect(server.origin)
        try:
            return await self._asked(link)
        except NodeLost:
            if not link.stale:
                raise
        return await self._asked(await pool.connect(server.origin))

    async def _asked(self, link: UpstreamConnection) -> UpstreamResponse:
        self._link = link
        try:
            return await link.ask(self._method, self._head, self._body)
        except BaseException:
            link.abort()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._link is not None:
            self._pool.give_back(self._link, self._server.idle)


@asynccontextmanager
async def upstream(
    *, connect_seconds: float, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[Pool]:
    """Hold connections for asking servers; `tls` says how to trust those that use it.

    No deadline on answers: a slow machine is not a dead one.
    """
    pool = Pool(connect_seconds, tls)
    try:
        yield pool
    finally:
        pool.close()


def _said(error: OSError | UnicodeError) -> str:
    """Name the fault alike on every event loop."""
    if isinstance(error, ssl.SSLError):
        return getattr(error, "verify_message", None) or error.reason or str(error)
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number and number > 0 else str(error)
