"""Port context: what all connections of one port share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from edgeserve.http.server.limits import BodyMemory, Limits
from edgeserve.http.types import Handler

Admit = Callable[[Mapping[str, str]], object]
"""Checks a request's header fields; raises where its body is not to be read."""


class Client(Protocol):
    """One client's connection, as the port uses it."""

    peer: str
    heard: bool
    task: asyncio.Task[None] | None
    transport: asyncio.Transport

    def tick(self, now: float) -> None:
        """Enforce the time limits."""
        ...

    @property
    def idle_until(self) -> float:
        """See `CountedConnection.idle_until`."""
        ...

    def connection_lost(self, exc: Exception | None) -> None:
        """End all work for this client."""
        ...

    def retire(self) -> None:
        """Close now if nothing is being answered, else after the answer."""
        ...


class PortContext(Protocol):
    """What all connections of one port share."""

    handler: Handler
    handled: Callable[[str], bool]
    admit: Admit
    check_host: Admit
    memory: BodyMemory
    limits: Limits
    body_limit: int
    leaving: bool

    def arrived(self, client: Client) -> None:
        """Count a connection; raises FleetBusy or NoRoom where there are too many."""
        ...

    def departed(self, client: Client) -> None:
        """Forget a connection."""
        ...

    def hand_over(self, client: Client, data: bytes) -> None:
        """Let aiohttp answer the request `data`, the last one of this connection."""
        ...
