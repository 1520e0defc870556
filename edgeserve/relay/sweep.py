"""One coarse clock for every time limit: a look at all that is watched, now and then.

Setting a limit is then one assignment on the hot path, not a timer of the event loop.
Who looks late has stood still itself: what came meanwhile is read before it is judged.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Protocol

from edgeserve.background import declared, guarded

SWEEP = declared("time limits", "timer")

NEVER = float("inf")
"""A deadline that does not come."""


LATE_SECONDS = 1.0
"""So late is not our turn in a process that is merely busy."""


class Watched(Protocol):
    """Something with time limits."""

    def tick(self, now: float) -> None:
        """Act on what is overdue at `now`, in seconds of the event loop."""
        ...


class Sweep:
    """Ticks everything watched every `every` seconds; sleeps while nothing is."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._loop = asyncio.get_running_loop()
        self._watched: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._late = False

    def add(self, thing: Watched) -> None:
        """Watch `thing` until it is discarded."""
        self._watched.add(thing)
        if self._timer is None:
            self._begin()

    def discard(self, thing: Watched) -> None:
        """Watch `thing` no longer."""
        self._watched.discard(thing)

    def stop(self) -> None:
        """Watch nothing any longer."""
        self._watched.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self) -> None:
        self._due = self._loop.time() + self._every
        self._timer = self._loop.call_later(self._every, self._turn)

    def _turn(self) -> None:
        self._timer = None
        now = self._loop.time()
        self._late = not self._late and now - self._due > LATE_SECONDS
        if not self._late:
            for thing in tuple(self._watched):
                # Should one fail, the others' limits hold all the same.
                guarded(SWEEP, partial(thing.tick, now))
        if self._watched and self._timer is None:
            self._begin()
