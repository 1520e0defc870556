"""Relayed requests: count those that run; a node that leaves waits for them."""

from __future__ import annotations

import asyncio


class RelayedRequests:
    """Each is counted for the length of a block."""

    def __init__(self) -> None:
        self._inside = 0
        self._empty = asyncio.Event()
        self._empty.set()

    def __enter__(self) -> None:
        """Count one."""
        self._inside += 1
        self._empty.clear()

    def __exit__(self, *_: object) -> None:
        """Count it no longer."""
        self._inside -= 1
        if self._inside == 0:
            self._empty.set()

    @property
    def busy(self) -> bool:
        """Whether one runs."""
        return self._inside > 0

    async def drained(self) -> None:
        """Wait until none runs."""
        await self._empty.wait()
