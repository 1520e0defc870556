"""Fairness: the order in which waiting requests are served. Pure.

Shortest prefill first, because the mean wait is least that way and because the request
whose conversation lies in the slot that has just come free is then the next one. Every
second of waiting makes up for some of that, so that nobody starves; less of it where
one client floods the room, so that its requests do not age into precedence. And whoever
has had more of the fleet than the others that wait stands back for a while.

Before all others go those whose engine has failed them: they have waited already, and
some in the midst of an answer that somebody is reading.

Stricter fairness has a price: with twelve clients of unlike appetite, ageing by equal
shares cost 7 % in the 95th percentile and 20 % in the 99th (simulated).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp

from balancer.routing.queued_request import QueuedRequest

AGEING = 0.3
"""Seconds of prefill that a second of waiting makes up for, of a lone request."""

FLOOD = 4
"""How many times more requests than others a client may have waiting, unpunished."""

STANDING_BACK = 0.1
"""Seconds of prefill that a second of the fleet, more than others had, counts for."""

MEMORY = 120.0
"""Seconds over which what a client had is forgotten."""

CLIENTS = 4096
"""Most clients that are remembered."""


@dataclass(slots=True)
class FairOrder:
    """Remembers what each client had: slot seconds, which fade."""

    had: dict[str, tuple[float, float]] = field(
        default_factory=dict[str, tuple[float, float]]
    )

    def charge(self, client: str, seconds: float, now: float) -> None:
        """A client's request takes a slot for so long."""
        self.had[client] = (self.owed(client, now) + seconds, now)
        if len(self.had) > CLIENTS:
            oldest = min(self.had, key=lambda each: self.had[each][1])
            del self.had[oldest]

    def owed(self, client: str, now: float) -> float:
        """Slot seconds that a client had of late."""
        seconds, at = self.had.get(client, (0.0, now))
        return seconds * exp(-(now - at) / MEMORY)

    def ranked(
        self, waiting: Sequence[QueuedRequest], now: float
    ) -> list[QueuedRequest]:
        """First who goes first."""
        if len(waiting) < 2:
            return list(waiting)
        count = Counter(waiter.client for waiter in waiting)
        owed = {client: self.owed(client, now) for client in count}
        least = min(owed.values(), default=0.0)
        slower = {client: _slower(count, client) for client in count}

        def key(waiter: QueuedRequest) -> tuple[bool, float]:
            client = waiter.client
            age = (now - waiter.arrived) / slower[client]
            more = owed[client] - least
            cost = waiter.read + STANDING_BACK * more - AGEING * age
            return not waiter.again, cost

        return sorted(waiting, key=key)


def _slower(count: Counter[str], client: str) -> float:
    """By how much a client's requests age slower, for how many it has waiting."""
    if len(count) < 2:
        return 1.0
    others = (count.total() - count[client]) / (len(count) - 1)
    return max(1.0, count[client] / (FLOOD * others))
