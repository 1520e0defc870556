"""Signs of life for a client whose stream does not go on because it waits for a slot.

A client that does not stream gets none: its status line would have to go out first, and
a refusal with its true status and `Retry-After` is worth more to it than patience.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from balancer.delivery import Delivery
from balancer.queued import Note
from balancer.schedule import Decision, Wait

HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache",
}
EVERY_SECONDS = 10.0
"""Clients and proxies give up after 30 s of silence at the earliest."""

WAITING = b": waiting for a slot\n\n"


class Lull:
    """Begins with a decision to wait, or to hope; `end` must follow once `begun`."""

    __slots__ = ("_delivery", "_note", "_streams", "_task")

    def __init__(self, delivery: Delivery, note: Note, *, streams: bool) -> None:
        self._delivery = delivery
        self._note = note
        self._streams = streams
        self._task: asyncio.Task[None] | None = None

    @property
    def begun(self) -> bool:
        """Whether the client is being kept company."""
        return self._task is not None

    def note(self, decision: Decision) -> None:
        """Take in a decision, and pass it on."""
        if isinstance(decision, Wait):
            self.begin()
        self._note(decision)

    def begin(self) -> None:
        """Keep the client company, where it asked for a stream."""
        if self._streams and self._task is None:
            self._task = asyncio.create_task(self._speak(), name="waiting")

    async def end(self) -> None:
        """Fall silent; somebody else speaks now."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await self._task

    async def _speak(self) -> None:
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            await self._delivery.life(HEADERS, WAITING)
