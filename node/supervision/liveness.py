"""Engine liveness: notice a hung decode and a frozen process. Pure.

No endpoint of llama.cpp shows a decode that never returns: /health and /metrics still
answer. Only counters that stop while there is work show it.

A slow engine still uses some processor time, even on a busy machine. An engine that
waits for a disk or is under a debugger is left alone. Frozen is a process that is
stopped, or that has work, does nothing and does not answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgeserve.wire import Ended
from node.engines.base import EngineSpec
from node.engines.probe import CALLS, READ, Counters
from node.engines.process import Look

SHORTEST_SECONDS = 10.0
CALLS_MISSED = 20.0
"""An engine hangs after this long, and the time of this many decode calls, without
progress."""

LOOK_SECONDS = 10.0
"""Looks are never further apart, unless this process itself was stopped."""


@dataclass(frozen=True)
class DecodeWatchdog:
    """The last counters, and since when they have not changed (seconds).

    `call` is the longest time that a decode call has taken, or should take; None where
    it is not known. `full` is the number of prompt tokens after which every kind of
    call has run once: a GPU may compile for minutes before a kind's first call. `read`
    is how many were read in all when its counters were last seen.
    """

    since: float
    counters: Counters | None = None
    call: float | None = None
    full: float = 0.0
    read: float = 0.0
    looked: float = 0.0
    moved: float = 0.0
    """When the counters last changed."""

    def again(self, now: float) -> DecodeWatchdog:
        """Start over: there was no work."""
        return replace(self, since=now, counters=None, looked=now)

    def seen(
        self, counters: Counters | None, now: float, *, excused: bool = False
    ) -> DecodeWatchdog:
        """Take in the counters of now; None where /metrics did not answer.

        `excused`: something else explains the lack of progress.
        """
        # A look this late means that this process was stopped itself.
        late = max(0.0, now - max(self.looked, self.since) - LOOK_SECONDS)
        unchanged = replace(
            self, since=now if excused else self.since + late, looked=now
        )
        if counters is None:
            return unchanged
        if counters.working and counters == self.counters:
            return unchanged
        return replace(
            unchanged,
            since=now,
            counters=counters,
            read=counters.done[READ],
            moved=now,
            call=self._longest_call(counters, now),
        )

    def _longest_call(self, counters: Counters, now: float) -> float | None:
        """Return the longest call, with those between two looks at a busy engine."""
        before = self.counters
        if self.call is None or before is None:
            return self.call
        calls = counters.done[CALLS] - before.done[CALLS]
        if calls < 1 or not (before.working and counters.working):
            return self.call
        return max(self.call, (now - self.moved) / calls)

    def still_seconds(self, now: float) -> float:
        """How many seconds there has been work and no progress."""
        return now - self.since

    def patience(self, limit: float) -> float:
        """Return how many seconds without progress it may have, at most `limit`.

        An engine that hangs before the first look at its work may not answer any.
        """
        if self.call is None or self.read < self.full:
            return limit
        return min(limit, max(SHORTEST_SECONDS, CALLS_MISSED * self.call))


def watchdog_of(spec: EngineSpec, now: float, *, vision: bool) -> DecodeWatchdog:
    """Start to watch an engine, with its expected speed.

    The counters change with every call only where the engine handles text alone: no
    counter shows how much of an image has been processed.
    """
    expected, launch = spec.expected, spec.launch
    text = spec.role == "generate" and not vision
    if not text or expected is None or min(expected.read, expected.write) <= 0:
        return DecodeWatchdog(now)
    call = max(launch.batch / expected.read, 1 / expected.write)
    full = launch.batch if launch.gpu_layers else 0.0
    return DecodeWatchdog(now, call=call, full=full)


STOPPED_LOOKS = 2
SILENT_LOOKS = 6
"""After this many looks in a row without activity, a process is given up. The system
says that one is stopped; a silent one may be the fault of this process."""

STOPPED = "its process is stopped"
SILENT = "its process does nothing and does not answer"


@dataclass(frozen=True)
class ProcessActivity:
    """The latest look, and how many looks in a row showed no activity.

    A process that is stopped again and again, to slow it down, uses some time.
    """

    latest: Look
    missed: int = 0

    def idles(self, look: Look) -> bool:
        """Whether it has done nothing since, and nothing explains that."""
        return self._rests(look) and not (look.stopped or look.excused)

    def seen(self, look: Look, *, silent: bool) -> ProcessActivity:
        """Take in a look; `silent`: it had work, did nothing and did not answer."""
        stopped = look.stopped and self._rests(look)
        dead = stopped or (silent and self.idles(look))
        return ProcessActivity(look, self.missed + 1 if dead else 0)

    def _rests(self, look: Look) -> bool:
        return look.cpu <= self.latest.cpu

    @property
    def ended(self) -> Ended:
        """Whether it was stopped from outside."""
        return "killed" if self.latest.stopped else "died"

    @property
    def lost(self) -> str | None:
        """What is wrong, if the process is to be given up."""
        if self.latest.stopped:
            return STOPPED if self.missed >= STOPPED_LOOKS else None
        return SILENT if self.missed >= SILENT_LOOKS else None


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Seconds between looks at an engine, and a factor on back-off.

    llama.cpp notices that the client of a non-streaming request has left only in a
    second without other events, and a request for /metrics is an event. So never look
    more often, but for the first moments after a client has `left`, which are enough
    for most streams.
    """

    ready: float = 0.1
    progress: float = 2.0
    activity: float = 0.5
    left: tuple[float, ...] = (0.1, 0.3, 0.4)
    file: float = 5.0
    backoff: float = 1.0
