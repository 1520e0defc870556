"""Engine watch: find out that a running engine hangs, freezes or takes too much memory.

The decisions are in `liveness` and `growth`; this asks the process and the system.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from edgeserve.runtime.tasks import first_of
from edgeserve.wire import Ended, EngineState
from node.engines.probe import Counters, Probe
from node.engines.process import Look, Process
from node.supervision import growth
from node.supervision.liveness import DecodeWatchdog, Intervals, ProcessActivity
from node.supervision.slots import Slots

LATE_SECONDS = 0.5


class SlotEvents:
    """Events of an engine's slots: some are busy, none has a client, a client left."""

    def __init__(self) -> None:
        self.working = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self.left = asyncio.Event()

    def update(self, slots: Slots) -> None:
        """Set the events after a claim or a release."""
        (self.working.set if slots.busy else self.working.clear)()
        (self.idle.clear if slots.attended else self.idle.set)()
        if slots.left:
            self.left.set()


Lost = Callable[[EngineState, str, Ended], str]
"""Stops claims at once; the process is still to be ended. Returns the reason."""


@dataclass(kw_only=True)
class EngineWatch:
    """Watches one process of an engine.

    `memory_limit` is in bytes; 0 sets none.
    """

    process: Process
    probe: Probe
    slots: Slots
    events: SlotEvents
    lost: Lost
    stuck_seconds: float
    intervals: Intervals
    clock: Callable[[], float]
    ready: bool = False
    memory_limit: int = 0

    async def decoding(self, watchdog: DecodeWatchdog) -> str:
        """Watch a ready engine at its work; returns what is wrong."""
        return await first_of(self._progress(watchdog), self._released())

    async def _progress(self, watchdog: DecodeWatchdog) -> str:
        """Read the counters while requests run; an idle engine is left alone."""
        while True:
            await self.events.working.wait()
            watchdog = watchdog.again(self.clock())
            while self.slots.busy:
                await asyncio.sleep(self.intervals.progress)
                counters, look = await self._counters(), self.process.look()
                excused = look is not None and look.excused
                watchdog = watchdog.seen(counters, self.clock(), excused=excused)
                limit = watchdog.patience(self.stuck_seconds)
                if watchdog.still_seconds(self.clock()) >= limit:
                    return self.lost("stuck", f"no progress for {limit:g} s", "died")

    async def _released(self) -> str:
        """See soon that the engine has dropped the requests of clients that left."""
        while True:
            await self.events.left.wait()
            for pause in self.intervals.left:
                await asyncio.sleep(pause)
                if self.slots.left:
                    await self._counters()
            self.events.left.clear()

    async def _counters(self) -> Counters | None:
        """Read the counters; an engine that does not answer holds no abandoned slot."""
        before = self.slots.attended
        counters = await self.probe.counters()
        begun = max(0, self.slots.attended - before)
        # The engine may not know yet of requests that came meanwhile.
        self.slots.freed(counters.requests + begun if counters else 0)
        return counters

    async def alive(self) -> str:
        """Watch the process from its start; returns what is wrong."""
        activity = ProcessActivity(self.process.look() or Look(0.0))
        every = self.intervals.activity
        while True:
            began = self.clock()
            await asyncio.sleep(every)
            if (look := self.process.look()) is None:
                continue
            if 0 < self.memory_limit < look.memory:
                self.process.kill()  # at once: it goes on growing
                why = growth.reason(look.memory, self.memory_limit)
                return self.lost("failed", why, "died")
            asks = self.ready and self.slots.busy and activity.idles(look)
            silent = bool(asks) and not await self.probe.answers(every)
            # If this process was late itself, it may have missed the answer.
            in_time = self.clock() - began < 2 * every + LATE_SECONDS
            activity = activity.seen(look, silent=silent and in_time)
            if activity.lost:
                return self.lost("stuck", activity.lost, activity.ended)
