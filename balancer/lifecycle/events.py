"""Lifecycle events: the last loads and unloads of engines, and a way to follow them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import Literal

import msgspec

REMEMBERED = 256

EventKind = Literal["load_ordered", "loaded", "load_failed", "unloaded", "scaled"]
"""`scaled`: the balancer wants another number of engines of a model."""


class LifecycleEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened to an engine.

    `at` is in Unix seconds, `node` a name, `model` the full name of a variant.
    `seconds` is how long the load took, or is expected to take where it was ordered.
    """

    at: float
    kind: EventKind
    node: str = ""
    engine: str = ""
    model: str = ""
    reason: str = ""
    seconds: float | None = None


class LifecycleEvents:
    """The last 256 events, the oldest first."""

    def __init__(self) -> None:
        self._events: deque[LifecycleEvent] = deque(maxlen=REMEMBERED)
        self._count = 0
        self._waiting: list[asyncio.Future[None]] = []

    def append(self, event: LifecycleEvent) -> None:
        """Add an event, and wake those who follow."""
        self._events.append(event)
        self._count += 1
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    def latest(self) -> list[LifecycleEvent]:
        """Return the events that are remembered."""
        return list(self._events)

    def follow(self) -> AsyncGenerator[LifecycleEvent]:
        """Yield each event from this call on, until it is closed.

        A slow reader misses events that are no longer remembered.
        """
        return self._from(self._count)

    async def _from(self, seen: int) -> AsyncGenerator[LifecycleEvent]:
        while True:
            missed = min(self._count - seen, len(self._events))
            seen = self._count
            for event in self.latest()[len(self._events) - missed :]:
                yield event
            if seen == self._count:
                change = asyncio.get_running_loop().create_future()
                self._waiting.append(change)
                await change
