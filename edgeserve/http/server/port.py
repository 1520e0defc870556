"""Port: the connections to one port, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edgeserve.http.server.admission import Crowd, TooMany
from edgeserve.http.server.aiohttp_runner import Guest
from edgeserve.http.server.connection import Connection
from edgeserve.http.server.context import Admit, Client
from edgeserve.http.server.limits import BodyMemory, Limits
from edgeserve.http.sockets import most_connections, open_files
from edgeserve.http.types import Handler
from edgeserve.runtime.clock import Ticker
from edgeserve.runtime.memory import Relief

FLUSH_SECONDS = 1.0
"""How long last bytes may take to leave, once every answer is complete."""


class Port:
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
        self.room = BodyMemory(limits)
        self.room.on_relief = Relief(asyncio.get_running_loop()).soon
        self.leaving = False
        self._guests = guests
        self._loop = asyncio.get_running_loop()
        self._sweep = Ticker(limits.sweep_seconds)
        self._clients: set[Client] = set()
        self._most = limits.connections or most_connections(open_files())
        self._crowd: Crowd[Client] = Crowd(self._most, limits.per_address)
        self._empty = asyncio.Event()
        self._left: asyncio.Event | None = None

    @property
    def backlog(self) -> int:
        """Connections that may wait to be accepted: all of them are, at once."""
        return max(8, self._most // 4)

    def connection(self) -> Connection:
        """Make the protocol for one accepted connection."""
        return Connection(self, self._loop)

    def arrived(self, client: Client) -> None:
        """See `Site.arrived`."""
        self._clients.add(client)
        self._sweep.add(client)
        try:
            idle = self._crowd.enter(client)
        except TooMany:
            client.transport.abort()
            return
        if idle is not None:
            self._crowd.leave(idle)  # at once: many may come before it is gone
            idle.transport.abort()

    def departed(self, client: Client) -> None:
        """See `Site.departed`."""
        self._clients.discard(client)
        self._sweep.discard(client)
        self._crowd.leave(client)
        if self.leaving and not self._clients:
            self._empty.set()
            if self._left is not None:
                self._left.set()

    def hand_over(self, client: Client, data: bytes) -> None:
        """See `Site.hand_over`."""
        self._clients.discard(client)
        guest = Guest(self._guests(), client)
        transport = client.transport
        transport.set_protocol(guest)
        guest.connection_made(transport)
        guest.ask(data)

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
