"""Lifecycle events: the last loads and unloads of engines, and a way to follow them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Collection
from typing import Literal

import msgspec

REMEMBERED = 256

EventKind = Literal["load_ordered", "loaded", "load_failed", "unloaded", "scaled"]
"""`scaled`: the balancer wants another number of engines of a model."""


LOADS: frozenset[EventKind] = frozenset(("load_ordered", "loaded", "load_failed"))
"""What a request may have waited for."""


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

    def loads(
        self, names: Collection[str], began: float, ended: float
    ) -> list[LifecycleEvent]:
        """Return what was loaded in a time, in Unix seconds, of variants or models."""
        return [
            each
            for each in self._events
            if each.kind in LOADS
            and began <= each.at <= ended
            and not {each.model, each.model.partition(":")[0]}.isdisjoint(names)
        ]

    def follow(self) -> AsyncGenerator[LifecycleEvent]:
        """Yield each event from this call on, until it is closed.

        A slow reader misses events that are no longer remembered.
        """
        return self._from(self._count)

    async def _from(self, seen: int) -> AsyncGenerator[LifecycleEvent]:
        while True:
            seen, missed = self.since(seen)
            for event in missed:
                yield event
            await self.more_than(seen)

    def since(self, seen: int) -> tuple[int, list[LifecycleEvent]]:
        """Return how many events there were, and those after the first `seen`."""
        missed = min(self._count - seen, len(self._events))
        return self._count, self.latest()[len(self._events) - missed :]

    async def more_than(self, seen: int) -> None:
        """Wait until there were more events than that."""
        while self._count <= seen:
            change = asyncio.get_running_loop().create_future()
            self._waiting.append(change)
            try:
                await change
            finally:
                if change in self._waiting:
                    self._waiting.remove(change)
