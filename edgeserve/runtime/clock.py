"""Clocks: one coarse timer for many time limits, and a clock of active time.

With one coarse timer, setting a time limit is one assignment on the hot path, not a
timer of the event loop.

A process that is stopped, swapped out or without a processor reads nothing. When it
continues, all peers seem to have been silent, because their messages are still unread.
`ActiveClock` leaves out that time, and the moment in which those messages are read.

When the machine sleeps, the loop's clock stops too; another clock shows it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from typing import Protocol

from edgeserve.runtime.background import declared, guarded

SWEEP = declared("time limits", "timer")

NEVER = inf
"""A deadline that never comes."""

LATE_SECONDS = 1.0
"""A timer that is later than this means that the process stood still."""


class Watched(Protocol):
    """Something with time limits."""

    def tick(self, now: float) -> None:
        """Enforce the limits that are past at `now`, in seconds of the event loop."""
        ...


class Ticker:
    """Calls `tick` of each watched object every `every` seconds."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._loop = asyncio.get_running_loop()
        self._watched: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._late = False

    def add(self, thing: Watched) -> None:
        """Watch an object until it is discarded."""
        self._watched.add(thing)
        if self._timer is None:
            self._begin()

    def discard(self, thing: Watched) -> None:
        """Stop watching an object."""
        self._watched.discard(thing)

    def stop(self) -> None:
        """Stop watching all objects."""
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
                # A failure of one must not lift the limits of the others.
                guarded(SWEEP, partial(thing.tick, now))
        if self._watched and self._timer is None:
            self._begin()


EVERY_SECONDS = 0.25
AWAY_SECONDS = 0.5
"""A timer that is later than this means that the process stood still."""

READING_SECONDS = 1.0
"""Time to read, after a standstill, what has come meanwhile."""

BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""The clock that runs while the machine sleeps; on macOS it has the other name."""


def asleep() -> float:
    """Return how many seconds this machine has slept, from an arbitrary start."""
    return time.clock_gettime(BOOT_CLOCK) - time.monotonic()


class ActiveClock:
    """Counts the seconds in which this process was running."""

    def __init__(self, asleep: Callable[[], float] = asleep) -> None:
        self._loop = asyncio.get_running_loop()
        self._asleep = asleep
        self._slept = asleep()
        self._lost = 0.0
        self._woke = -inf
        self._due = self._loop.time()
        self._check()

    def time(self) -> float:
        """Return the time. It goes back a little when a standstill is noticed."""
        now = self._loop.time()
        late = now - self._due
        # Each call checks, because timers run in any order after a standstill.
        if late > AWAY_SECONDS:
            self._lost += late + READING_SECONDS
            self._due = now + EVERY_SECONDS
            self._woke = now
        return now - self._lost

    def woke(self, seconds: float) -> bool:
        """Whether this process stood still, or the machine slept, within `seconds`."""
        return self._loop.time() - self._woke < seconds

    def _check(self) -> None:
        self.time()
        slept = self._asleep()
        if slept - self._slept > AWAY_SECONDS:
            self._lost += READING_SECONDS
            self._woke = self._loop.time()
        self._slept = slept
        self._due = self._loop.time() + EVERY_SECONDS
        self._timer = self._loop.call_later(EVERY_SECONDS, self._check)

    def close(self) -> None:
        """Stop the timer."""
        self._timer.cancel()


class Silence:
    """Ends a block after a time without a message."""

    def __init__(
        self, awake: ActiveClock, seconds: float, limit: asyncio.Timeout
    ) -> None:
        self._awake = awake
        self._seconds = seconds
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self.heard()
        self._check()

    def heard(self) -> None:
        """Note a message: the time starts again."""
        self._until = self._awake.time() + self._seconds

    def _check(self) -> None:
        left = self._until - self._awake.time()
        if left > 0:
            self.timer = self._loop.call_later(left, self._check)
        else:
            self._limit.reschedule(self._loop.time())


@asynccontextmanager
async def unless_silent(awake: ActiveClock, seconds: float) -> AsyncGenerator[Silence]:
    """Raise TimeoutError in the block after `seconds` without a message."""
    async with asyncio.timeout(None) as limit:
        silence = Silence(awake, seconds, limit)
        try:
            yield silence
        finally:
            silence.timer.cancel()
