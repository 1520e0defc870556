"""Learned width: how many requests a server answers at once, from what it did. Pure.

A request beyond the width waits in the server: its first token comes late, after the
end of another one. How many it answered meanwhile is its width. This is like Netflix'
concurrency-limits (its Gradient2 and Vegas compare latencies with their usual value,
and grow by the square root of the limit: github.com/Netflix/concurrency-limits), and
like TCP: it doubles until the first queue (slow start, RFC 5681), grows slowly later,
and shrinks at once. Unlike these it need not search downwards, since streams show how
many were answered.

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

WORTH = 0.001
"""Another request at once must add this share of throughput."""


class LearnedWidth(msgspec.Struct):
    """The width of one engine, by what its requests have shown.

    `rounds`: how many rounds of requests, each as many as the width, must be on time at
    the full width before it grows; `credit` counts them. `late` of them in a row have
    waited while `served` were answered. `shown`: it is no assumption any more.
    """

    width: int
    most: int = MOST
    shown: bool = False
    starting: bool = True
    rounds: int = 1
    credit: int = 0
    late: int = 0
    served: int = 0
    trial: bool = False

    def on_time(self, at_once: int, ends: int, slowdown: float) -> None:
        """Learn that a request did not wait, of so many at once; see `worth`.

        It got its first token after at most `ends` of the others had ended. Where
        answers end all the time, an eighth less than the width is as good as full.
        """
        answered = at_once - ends
        if answered > self.served:
            self.late = self.served = 0
        if answered + self.width // 8 < self.width:
            return
        self.credit += 1
        if self.credit >= self.width * (1 if self.trial else self.rounds):
            self._proven(slowdown)

    def queued(self, served: int) -> None:
        """Learn that a request waited while so many were answered."""
        if not 0 < served < self.width:
            return
        self.late += 1
        self.served = max(self.served, served)
        if self.late < IN_A_ROW:
            return
        self.rounds = min(2 * self.rounds, MOST_ROUNDS) if self.trial else 1
        self._become(self.served)
        self.starting = self.trial = False

    def refused(self, at_once: int) -> None:
        """Learn that it refused a request, the last of so many at once."""
        self.served, self.late = 0, IN_A_ROW
        self.queued(max(1, at_once - 1))

    def _proven(self, slowdown: float) -> None:
        """Grow after whole rounds on time, where that adds to the throughput."""
        if self.trial:
            self.rounds = 1
        self.credit, self.shown = 0, True
        if not worth(self.width - 1, slowdown, WORTH / 2):
            self._become(self.width - 1)
        elif self.width < self.most and worth(self.width, slowdown):
            more = self.width if self.starting else max(1, isqrt(self.width) // 2)
            self._become(min(self.width + more, self.most))
            self.trial = True

    def _become(self, width: int) -> None:
        self.width, self.shown = max(1, width), True
        self.credit = self.late = self.served = 0


def worth(width: int, slowdown: float, share: float = WORTH) -> bool:
    """Whether one more request at once adds that share to the throughput.

    Of k answers each gets a token in a time that grows with `1 + slowdown * (k - 1)`.
    """
    if width < 1:
        return True
    now = width / (1 + slowdown * (width - 1))
    return (width + 1) / (1 + slowdown * width) >= (1 + share) * now


LATE = 2.0
LATE_SECONDS = 0.05
"""A first token is late after so many times the expected seconds, and so many more."""


def is_late(first: float, expected: float) -> bool:
    """Whether a first token came so late that its request must have waited."""
    return first > LATE * expected + LATE_SECONDS
