"""Who is inside, and when the house is empty."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from edgeserve.errors import Draining


@dataclass
class Doorkeeper:
    """Counts the requests inside, and lets nobody in while the house empties."""

    draining: bool = False
    inside: int = 0
    _empty: asyncio.Event = field(default_factory=asyncio.Event)

    def __enter__(self) -> None:
        """Count one request for the length of the block, or raise Draining."""
        if self.draining:
            raise Draining("balancer")
        self.inside += 1

    def __exit__(self, *_: object) -> None:
        """Let it out."""
        self.inside -= 1
        if self.inside == 0:
            self._empty.set()

    async def drained(self, seconds: float) -> bool:
        """Let nobody in and wait for those inside; False when time runs out first."""
        self.draining = True
        if self.inside == 0:
            return True
        self._empty.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True
