"""Fairness: the order in which waiting requests are served. Pure.

The shortest prefill goes first: that gives the least mean wait, and the request whose
conversation is in the slot that has just come free is then the next one. Waiting makes
up for a longer prefill, so that no request starves. It does so more slowly where one
client has far more requests waiting than others. A client that used more of the fleet
than the other waiting clients goes later for a while.

Requests that an engine has failed go before all others: they have waited already, some
in the middle of an answer. Then come those of the keys with the highest priority; all
of the above holds among requests of one priority.

Stricter fairness has a price: with twelve clients of unequal demand, ageing by equal
shares cost 7 % in the 95th percentile and 20 % in the 99th (simulated).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp

from balancer.routing.queued_request import QueuedRequest

AGEING = 0.3
"""Seconds of prefill that a second of waiting makes up for."""

FLOOD = 4
"""A client with more waiting requests than this many times the others' ages slower."""

USE_PENALTY = 0.1
"""Seconds of prefill that each slot second beyond the least of the others counts."""

MEMORY = 120.0
"""Seconds over which the past use of a client fades."""

CLIENTS = 4096
"""Most clients that are remembered."""


@dataclass(slots=True)
class FairOrder:
    """Remembers the slot seconds that each client used, which fade."""

    uses: dict[str, tuple[float, float]] = field(
        default_factory=dict[str, tuple[float, float]]
    )

    def charge(self, client: str, seconds: float, now: float) -> None:
        """Count that a client's request takes a slot for so long."""
        self.uses[client] = (self.used(client, now) + seconds, now)
        if len(self.uses) > CLIENTS:
            oldest = min(self.uses, key=lambda each: self.uses[each][1])
            del self.uses[oldest]

    def used(self, client: str, now: float) -> float:
        """Slot seconds that a client used recently."""
        seconds, at = self.uses.get(client, (0.0, now))
        return seconds * exp(-(now - at) / MEMORY)

    def ranked(
        self, waiting: Sequence[QueuedRequest], now: float
    ) -> list[QueuedRequest]:
        """Return the requests in the order in which they are to be served."""
        if len(waiting) < 2:
            return list(waiting)
        count = Counter(request.client for request in waiting)
        used = {client: self.used(client, now) for client in count}
        least = min(used.values(), default=0.0)
        slower = {client: _slower(count, client) for client in count}

        def key(request: QueuedRequest) -> tuple[bool, int, float]:
            client = request.client
            age = (now - request.arrived) / slower[client]
            more = used[client] - least
            cost = request.read + USE_PENALTY * more - AGEING * age
            return not request.again, -request.routing.priority, cost

        return sorted(waiting, key=key)


def _slower(count: Counter[str], client: str) -> float:
    """By which factor a client's requests age slower, because so many wait."""
    if len(count) < 2:
        return 1.0
    others = (count.total() - count[client]) / (len(count) - 1)
    return max(1.0, count[client] / (FLOOD * others))
