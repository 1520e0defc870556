"""Stall detection: when a quiet attempt is late, slow or hung. Pure.

While a decode hangs, `/health` answers 200 and the connection stays open; only the
missing tokens show it. A long prefill is quiet too, but sends progress events or pings.

The retry budget bounds extra work: without it, a fleet in trouble would get every
request twice. A retry counts, but is never refused: its first attempt is over, so that
it adds no load, and its client should not see the fault.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import Literal

import msgspec

from edgeserve.wire import Launch

SHORTEST_SECONDS = 5.0
FACTOR = 3.0

UNLEARNED_SECONDS = 30.0
"""Patience with an engine whose pace is not known yet."""

SLOWEST = 4.0
"""The slowest of a hundred tokens, in mean times between two."""

MOST_FROM_TEXT = 65
"""How many tokens llama.cpp accepts at once where it guesses from the text."""

HUNG_SECONDS = 10.0
BATCHES_MISSED = 20.0
"""An engine that reports progress hangs after so many seconds, and the time of so many
decode calls, without a report."""

PINGS_MISSED = 2.5
"""Pings show that the process lives, not that it works."""

PINGED_BATCHES = 20.0
"""For the time of so many decode calls, pings alone are enough."""

Sign = Literal["head", "ping", "progress", "text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedPace:
    """The learned pace of an engine, in seconds; None where nothing is learned.

    `token`: 99th percentile of the time between two tokens. `batch`: one decode call of
    prefill. `ping`: between two pings in a quiet stream.
    """

    token: float | None = None
    batch: float | None = None
    ping: float = 30.0


class Progress(msgspec.Struct, eq=False, kw_only=True):
    """When one request last showed life, and work. Times are seconds of one clock.

    `queued`: nothing came yet. The engine sends the head when a slot begins, so that
    until then only its node's heartbeat counts.
    """

    phase: Literal["queued", "reading", "writing"] = "queued"
    alive_at: float = 0.0
    worked_at: float = 0.0

    def showed(self, sign: Sign, now: float) -> None:
        """Take in a sign of life."""
        self.alive_at = now
        if sign == "ping":
            return
        self.worked_at = now
        if sign == "text":
            self.phase = "writing"
        elif self.phase == "queued":
            self.phase = "reading"

    def wait_from(self, now: float) -> None:
        """Count all limits from `now`."""
        self.alive_at = self.worked_at = now

    def stuck_at(self, pace: ExpectedPace) -> float:
        """Return when to give the request up if nothing more comes; `inf` for never."""
        match self.phase:
            case "queued":
                return inf
            case "writing":
                return self.worked_at + _patience(pace.token)
            case "reading":
                quiet = max(_patience(pace.batch), PINGS_MISSED * pace.ping)
                batch = UNLEARNED_SECONDS if pace.batch is None else pace.batch
                pinged = max(PINGED_BATCHES * batch, 2 * quiet)
                return min(self.alive_at + quiet, self.worked_at + pinged)

    def excused_until(self, pace: ExpectedPace, read_at: float) -> float:
        """Return until when another's prompt, last read at `read_at`, is the reason.

        Its batch holds up every answer of the engine, and may take longer than learned.
        The second limit is for a request that alone is lost.
        """
        batch = pace.batch
        limit = UNLEARNED_SECONDS if batch is None else _hung_seconds(batch)
        return min(read_at + limit, self.worked_at + 2 * limit)

    def hung_at(self, pace: ExpectedPace) -> float:
        """Return when missing progress events show that the engine hangs.

        They do not while it does other work: it reads one prompt after the other.
        """
        if self.phase != "reading" or pace.batch is None:
            return inf
        return self.worked_at + _hung_seconds(pace.batch)


def _hung_seconds(batch: float) -> float:
    return max(HUNG_SECONDS, BATCHES_MISSED * batch)


def _patience(learned: float | None) -> float:
    if learned is None:
        return UNLEARNED_SECONDS
    return max(SHORTEST_SECONDS, FACTOR * learned)


def most_at_once(launch: Launch) -> int:
    """Return how many tokens may come together: all guesses and one more."""
    if launch.draft:
        return launch.draft_tokens + 1
    return MOST_FROM_TEXT if launch.speculative else 1


def slowest(mean: float, burst: int) -> float:
    """Return the 99th percentile of the time between two tokens, from the mean time.

    A speculating engine that has guessed right for long may suddenly guess wrong: a
    token then takes as long as several did. It gets at most the patience that an
    unknown engine has.
    """
    usual = SLOWEST * mean
    return max(usual, min(burst * mean, UNLEARNED_SECONDS / FACTOR))


PATIENCE = 1.5
GRACE_SECONDS = 2.0
GAIN = 0.3
"""The share of the remaining time that the other engine must save."""


def may_be_late(started: float, predicted: float, now: float) -> bool:
    """Whether a request that shows no work is late; times in seconds."""
    return now > started + PATIENCE * predicted + GRACE_SECONDS


def is_sooner(elsewhere: float | None, remaining: float) -> bool:
    """Whether another engine is worth it, by the seconds to the first token on each.

    None: no other engine has an idle slot.
    """
    return elsewhere is not None and elsewhere <= (1 - GAIN) * remaining


class RetryBudget:
    """Counts requests in flight, and the extra attempts among them."""

    def __init__(self, share: float = 0.10, least: int = 3) -> None:
        self._share = share
        self._least = least
        self.in_flight = 0
        self.extra = 0

    @property
    def allowed(self) -> int:
        """How many extra attempts may run at once."""
        return max(self._least, int(self.in_flight * self._share))

    @property
    def left(self) -> int:
        """How many more may begin now."""
        return max(0, self.allowed - self.extra)

    @contextmanager
    def another(self) -> Generator[bool]:
        """Count an extra attempt, if the block gets True."""
        granted = self.left > 0
        self.extra += granted
        try:
            yield granted
        finally:
            self.extra -= granted
