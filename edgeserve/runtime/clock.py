"""Clocks: one coarse ticker for many time limits, and a clock that stops with us.

With one coarse ticker, setting a time limit is one assignment on the hot path, not a
timer of the event loop.

A process that is stopped, swapped out or left no processor hears nothing. When it goes
on, everybody seems to have been silent, for what they said lies unread. That time says
nothing about others, nor does the moment in which what has come meanwhile is read.

A machine that sleeps stops the loop's clock as well; another clock tells of it.
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

NEVER = float("inf")
"""A deadline that does not come."""

LATE_SECONDS = 1.0
"""So late is not our turn in a process that is merely busy."""


class Watched(Protocol):
    """Something with time limits."""

    def tick(self, now: float) -> None:
        """Act on what is overdue at `now`, in seconds of the event loop."""
        ...


class Ticker:
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


EVERY_SECONDS = 0.25
AWAY_SECONDS = 0.5
"""So late is not our turn on a machine that is merely busy."""

READING_SECONDS = 1.0

GOES_ON = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""The clock that goes on while the machine sleeps; on macOS it has the other name."""


def asleep() -> float:
    """Return how many seconds this machine has slept, from any beginning."""
    return time.clock_gettime(GOES_ON) - time.monotonic()


class ActiveClock:
    """Seconds in which this process was at work; as of any moment, until closed."""

    def __init__(self, asleep: Callable[[], float] = asleep) -> None:
        self._loop = asyncio.get_running_loop()
        self._asleep = asleep
        self._slept = asleep()
        self._lost = 0.0
        self._woke = -inf
        self._due = self._loop.time()
        self._beat()

    def time(self) -> float:
        """Return the time. It goes back by a moment when a standstill is noticed."""
        now = self._loop.time()
        late = now - self._due
        # Whoever asks first after a standstill notices it: timers come in any order.
        if late > AWAY_SECONDS:
            self._lost += late + READING_SECONDS
            self._due = now + EVERY_SECONDS
            self._woke = now
        return now - self._lost

    def woke(self, seconds: float) -> bool:
        """Whether this process stood still, or the machine slept, so recently."""
        return self._loop.time() - self._woke < seconds

    def _beat(self) -> None:
        self.time()
        slept = self._asleep()
        if slept - self._slept > AWAY_SECONDS:
            self._lost += READING_SECONDS
            self._woke = self._loop.time()
        self._slept = slept
        self._due = self._loop.time() + EVERY_SECONDS
        self._timer = self._loop.call_later(EVERY_SECONDS, self._beat)

    def close(self) -> None:
        """Beat no longer."""
        self._timer.cancel()


class Silence:
    """How long nothing was heard."""

    def __init__(
        self, awake: ActiveClock, seconds: float, limit: asyncio.Timeout
    ) -> None:
        self._awake = awake
        self._seconds = seconds
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self.heard()
        self._look()

    def heard(self) -> None:
        """Begin anew."""
        self._until = self._awake.time() + self._seconds

    def _look(self) -> None:
        left = self._until - self._awake.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._limit.reschedule(self._loop.time())

    def stop(self) -> None:
        """Look no longer."""
        self._timer.cancel()


@asynccontextmanager
async def unless_silent(awake: ActiveClock, seconds: float) -> AsyncGenerator[Silence]:
    """Raise TimeoutError in the block once nothing was heard for so long."""
    async with asyncio.timeout(None) as limit:
        silence = Silence(awake, seconds, limit)
        try:
            yield silence
        finally:
            silence.stop()
