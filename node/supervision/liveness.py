"""Engine liveness: notice a hung decode and a frozen process. Pure.

No endpoint of llama.cpp tells of a decode that never returns: /health and /metrics stay
well. Only counters that stop while there is work do.

A slow engine, or one that others leave no processor, still uses some of its own; one
that waits for a disk is let be, and so is one under a debugger. What is left is a
process that is stopped, or that does nothing and does not answer while it has work.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgeserve.wire import Ended
from node.engines.base import EngineSpec
from node.engines.probe import CALLS, READ, Counters
from node.engines.process import Look

SHORTEST_SECONDS = 10.0
CALLS_MISSED = 20.0
"""An engine hangs after so long, and so many decode calls' time, without one."""

LOOK_SECONDS = 10.0
"""No two looks are further apart, unless this process itself is kept from working."""


@dataclass(frozen=True)
class DecodeWatchdog:
    """The last counters, and since when they have stood still (seconds).

    `call` is the longest that a decode call has taken, or should take: None where
    nothing is known. `full` is how many tokens of prompts are enough to have had every
    kind of call once: a GPU may compile for minutes what it runs first.
    """

    since: float
    counters: Counters | None = None
    call: float | None = None
    full: float = 0.0
    looked: float = 0.0
    moved: float = 0.0
    """When the counters were first as they are."""

    def again(self, now: float) -> DecodeWatchdog:
        """Begin anew: there was no work."""
        return replace(self, since=now, counters=None, looked=now)

    def seen(
        self, counters: Counters | None, now: float, *, excused: bool = False
    ) -> DecodeWatchdog:
        """Take in what /metrics said now; None where it did not answer.

        `excused`: something else explains that it gets nowhere.
        """
        # Whoever looks so late has stood still himself.
        late = max(0.0, now - max(self.looked, self.since) - LOOK_SECONDS)
        kept = replace(self, since=now if excused else self.since + late, looked=now)
        if counters is None:
            return kept
        if counters.working and counters == self.counters:
            return kept
        call = self._longest_call(counters, now)
        return replace(kept, since=now, counters=counters, moved=now, call=call)

    def _longest_call(self, counters: Counters, now: float) -> float | None:
        """Learn how long a call takes from those between two looks at its work."""
        before = self.counters
        if self.call is None or before is None:
            return self.call
        calls = counters.done[CALLS] - before.done[CALLS]
        if calls < 1 or not (before.working and counters.working):
            return self.call
        return max(self.call, (now - self.moved) / calls)

    def still_seconds(self, now: float) -> float:
        """How long there has been work and no progress."""
        return now - self.since

    def patience(self, limit: float) -> float:
        """Return how many seconds it may stand still; `limit` where little is known."""
        known = self.counters is not None and self.counters.working
        if self.call is None or not known or not self._is_warm:
            return limit
        return min(limit, max(SHORTEST_SECONDS, CALLS_MISSED * self.call))

    @property
    def _is_warm(self) -> bool:
        return self.counters is not None and self.counters.done[READ] >= self.full


def watch_of(spec: EngineSpec, now: float, *, vision: bool) -> DecodeWatchdog:
    """Begin to watch an engine, with what is expected of it.

    Only where text alone is read and written do the counters move with every call: no
    counter shows how far an image has been looked at.
    """
    expected, launch = spec.expected, spec.launch
    text = spec.role == "generate" and not vision
    if not text or expected is None or min(expected.read, expected.write) <= 0:
        return DecodeWatchdog(now)
    call = max(launch.batch / expected.read, 1 / expected.write)
    return DecodeWatchdog(now, call=call, full=launch.batch)


STOPPED_LOOKS = 2
SILENT_LOOKS = 6
"""So many looks in a row without a sign of life, and it is taken for dead. That one is
stopped the system says; that one is silent may be the fault of who asks."""

STOPPED = "its process is stopped"
SILENT = "its process does nothing and does not answer"


@dataclass(frozen=True)
class ProcessActivity:
    """The latest look, and how many in a row showed no life.

    One that is stopped again and again, to slow it down, uses some processor.
    """

    latest: Look
    missed: int = 0

    def idles(self, look: Look) -> bool:
        """Whether it has done nothing since, for which there is no excuse."""
        return self._rests(look) and not (look.stopped or look.excused)

    def seen(self, look: Look, *, silent: bool) -> ProcessActivity:
        """Take in a look; `silent`: it had work, did nothing, and gave no answer."""
        stopped = look.stopped and self._rests(look)
        dead = stopped or (silent and self.idles(look))
        return ProcessActivity(look, self.missed + 1 if dead else 0)

    def _rests(self, look: Look) -> bool:
        return look.cpu <= self.latest.cpu

    @property
    def ended(self) -> Ended:
        """Whether somebody else has brought that about."""
        return "killed" if self.latest.stopped else "died"

    @property
    def lost(self) -> str | None:
        """What is wrong with it, if it is to be given up."""
        if self.latest.stopped:
            return STOPPED if self.missed >= STOPPED_LOOKS else None
        return SILENT if self.missed >= SILENT_LOOKS else None


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often things are looked at, in seconds, and a factor on back-off.

    llama.cpp notices that the caller of a non-streaming request has left only in a
    second without any other news, and a look at /metrics is news: never look oftener,
    but for the first moments after a client has `left`, which do for most streams.
    """

    ready: float = 0.1
    progress: float = 2.0
    pulse: float = 0.5
    left: tuple[float, ...] = (0.1, 0.3, 0.4)
    file: float = 5.0
    backoff: float = 1.0
