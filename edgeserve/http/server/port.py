"""Port: counts the connections of one port and ends them at shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edgeserve.http.server.admission import ConnectionCounts, TooMany
from edgeserve.http.server.aiohttp_runner import PageConnection
from edgeserve.http.server.connection import Connection
from edgeserve.http.server.context import Admit, Client
from edgeserve.http.server.limits import BodyMemory, Limits
from edgeserve.http.sockets import most_connections, open_files
from edgeserve.http.types import Handler
from edgeserve.runtime.clock import Ticker
from edgeserve.runtime.memory import MemoryReturn

FLUSH_SECONDS = 1.0
"""Most time for the last bytes to be sent, once every answer is complete."""


class Port:
    """See `PortContext`."""

    def __init__(
        self,
        handler: Handler,
        handled: Callable[[str], bool],
        admit: Admit,
        body_limit: int,
        limits: Limits,
        page_server: Callable[[], asyncio.Protocol],
        check_host: Admit,
    ) -> None:
        self.handler = handler
        self.handled = handled
        self.admit = admit
        self.check_host = check_host
        # A larger one would never find room: 413 says so, 503 would have it sent again.
        self.body_limit = min(body_limit, limits.held_bytes)
        self.limits = limits
        self.memory = BodyMemory(limits)
        self.memory.on_relief = MemoryReturn(asyncio.get_running_loop()).soon
        self.leaving = False
        self.arriving: Callable[[], int] = lambda: 0  # handshakes not complete
        self._pages = page_server
        self._loop = asyncio.get_running_loop()
        self._ticker = Ticker(limits.sweep_seconds)
        self._clients: set[Client] = set()
        self._most = limits.connections or most_connections(open_files())
        self._counts: ConnectionCounts[Client] = ConnectionCounts(
            self._most, limits.per_address
        )
        self._empty = asyncio.Event()
        self._left: asyncio.Event | None = None

    @property
    def backlog(self) -> int:
        """Connections that may wait to be accepted."""
        return max(8, self._most // 4)

    def connection(self) -> Connection:
        """Make the protocol for one accepted connection."""
        return Connection(self, self._loop)

    def arrived(self, client: Client) -> None:
        """See `PortContext.arrived`."""
        self._clients.add(client)
        self._ticker.add(client)
        try:
            idle = self._counts.enter(client)
        except TooMany:
            client.transport.abort()
            return
        if idle is not None:
            self._counts.leave(idle)  # at once: many may come before it is closed
            idle.transport.abort()

    def departed(self, client: Client) -> None:
        """See `PortContext.departed`."""
        self._clients.discard(client)
        self._ticker.discard(client)
        self._counts.leave(client)
        self.settled()

    def settled(self) -> None:
        """Note that a connection has ended, or a handshake."""
        if not self.leaving or self._clients:
            return
        self._empty.set()
        if self._left is not None and not self.arriving():
            self._left.set()

    def hand_over(self, client: Client, data: bytes) -> None:
        """See `PortContext.hand_over`."""
        self._clients.discard(client)
        page = PageConnection(self._pages(), client)
        transport = client.transport
        transport.set_protocol(page)
        page.connection_made(transport)
        page.ask(data)

    def leave(self, close: Callable[[], None], left: asyncio.Event) -> None:
        """Accept no new connection; end each one with its next answer."""
        close()
        self.leaving = True
        self._left = left
        self.settled()

    async def stop(self, seconds: float) -> None:
        """Close idle connections, let answers finish for `seconds`, abort the rest."""
        self.leaving = True
        for client in tuple(self._clients):
            client.retire()
        tasks = {each.task for each in self._clients if each.task is not None}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
        await self._emptied()
        self._ticker.stop()

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
