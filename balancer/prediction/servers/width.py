"""Learned width: how many requests a server answers at once, from what it did. Pure.

A request beyond the width waits in the server: its first token comes late, after the
end of another one. How many it answered meanwhile is its width. This is like Netflix'
concurrency-limits (its Gradient2 and Vegas compare latencies with their usual value,
and grow by the square root of the limit: github.com/Netflix/concurrency-limits), and
like TCP: it doubles until the first queue (slow start, RFC 5681), grows slowly later,
and shrinks at once. Unlike these it need not search downwards, since streams show how
many were answered. Where answers only become slower, more at once is of no use, though
none waits: then the throughput says so.

A trial of a width that is too large costs a request its place in our queue, so after
each one that failed the next comes later. One that succeeds ends that: a server that
scales up is followed.
"""

from __future__ import annotations

from math import isqrt

import msgspec

MOST = 1024
"""The largest width; more is no limit."""

IN_A_ROW = 2
"""So many requests must have waited: one late token may be an accident."""

MOST_ROUNDS = 16
"""Rounds of requests between trials, however many have failed."""

GROWN = 1.5
"""After so much growth the throughput is compared with that of before."""

GAIN = 0.15
"""It must have grown by this share of the growth: else the server only shares time."""


class LearnedWidth(msgspec.Struct):
    """The width of one engine, by what its requests have shown.

    `rounds`: how many rounds of requests, each as many as the width, must be on time at
    the full width before it grows; `credit` counts them. `late` of them in a row have
    waited while `served` were answered. `shown`: it is no assumption any more.

    `tokens` are those of the answers that were counted, times how many there were at
    once, `seconds` what they took; `flow` is the throughput at the width `base`, 0
    before it is known.
    """

    width: int
    most: int = MOST
    shown: bool = False
    starting: bool = True
    trial: bool = False
    rounds: int = 1
    credit: int = 0
    late: int = 0
    served: int = 0
    tokens: float = 0.0
    seconds: float = 0.0
    base: int = 0
    flow: float = 0.0

    def on_time(self, at_once: int, ends: int, tokens: float, seconds: float) -> None:
        """Learn that a request did not wait, of so many at once; what it took in all.

        It got its first token after at most `ends` of the others had ended. Where
        answers end all the time, an eighth less than the width is as good as full.
        """
        answered = at_once - ends
        if answered > self.served:
            self.late = self.served = 0
        if answered + self.width // 8 < self.width:
            return
        self.credit += 1
        self.tokens += tokens * answered
        self.seconds += seconds
        if self.credit >= self.width * (1 if self.trial else self.rounds):
            self._proven()

    def queued(self, served: int) -> None:
        """Learn that a request waited while so many were answered."""
        if not 0 < served < self.width:
            return
        self.late += 1
        self.served = max(self.served, served)
        if self.late >= IN_A_ROW:
            self._failed(self.served)

    def refused(self, at_once: int) -> None:
        """Learn that it refused a request, the last of so many at once."""
        if at_once <= self.width:
            self._failed(at_once - 1)

    def _proven(self) -> None:
        """Grow after whole rounds on time, unless growing has been of no use."""
        flow = self.tokens / max(self.seconds, 1e-6)
        if not self.flow or self.width <= self.base:
            self.base, self.flow = self.width, flow
        elif self.width >= GROWN * self.base:
            if flow < self.flow * (1 + GAIN * (self.width / self.base - 1)):
                self._failed(self.base)
                return
            self.base, self.flow = self.width, flow
        if self.trial:
            self.rounds = 1
        if self.width < self.most:
            more = self.width if self.starting else max(1, isqrt(self.width) // 2)
            self._become(min(self.width + more, self.most))
            self.trial = True

    def _failed(self, width: int) -> None:
        self.rounds = min(2 * self.rounds, MOST_ROUNDS) if self.trial else 1
        self._become(width)
        if self.width < self.base:
            self.flow = 0.0
        self.starting = self.trial = False

    def _become(self, width: int) -> None:
        self.width, self.shown = max(1, width), True
        self.credit = self.late = self.served = 0
        self.tokens = self.seconds = 0.0


LATE = 1.5
LATE_SECONDS = 0.05
"""A first token is late after so many times the expected seconds, and so many more."""


def is_late(first: float, expected: float) -> bool:
    """Whether a first token came so late that its request must have waited."""
    return first > LATE * expected + LATE_SECONDS
