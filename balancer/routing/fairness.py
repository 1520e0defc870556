"""Fairness: the order in which waiting requests are served. Pure.

The formula is in `balancer.prediction.weights`: the least predicted work goes first, so
that the mean wait is short, and waiting makes up for more work, so that no request
starves. Waiting makes up more slowly where one client has far more requests waiting
than others. A client that used more of the fleet than the other waiting clients goes
later for a while.

Requests that an engine has failed go before all others: they have waited already, some
in the middle of an answer. Then come those of the keys with the highest priority; all
of the above holds among requests of one priority.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp

from balancer.prediction.weights import OVERTAKE, head_start, seniority
from balancer.routing.queued_request import QueuedRequest

FLOOD = 4
"""A client with more waiting requests than this many times the others' ages slower."""

USE_PENALTY = 0.2
"""Seconds of waiting that each slot second beyond the least of the others counts."""

MEMORY = 120.0
"""Seconds over which the past use of a client fades."""

CLIENTS = 4096
"""Most clients that are remembered."""

GAIN = 0.05
"""The share of a new request in the mean work."""

RETURNING = 0.2
"""The work of a conversation that goes on in its slot, in mean works."""


@dataclass(slots=True)
class FairOrder:
    """Remembers the slot seconds that each client used, which fade.

    `overtake` is the setting; `work` the mean predicted work of a request, in seconds.
    """

    overtake: float = OVERTAKE
    work: float = 0.0
    uses: dict[str, tuple[float, float]] = field(
        default_factory=dict[str, tuple[float, float]]
    )

    def charge(self, client: str, seconds: float, now: float) -> None:
        """Count that a client's request takes a slot for so long."""
        self.work += GAIN * (seconds - self.work) if self.work else seconds
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
            age = self._age(request, now) / slower[client]
            late = USE_PENALTY * (used[client] - least) - age
            late -= self._head_start(request.work)
            return not request.again, -request.routing.priority, late

        return sorted(waiting, key=key)

    def outranks_returning(self, request: QueuedRequest, now: float) -> bool:
        """Whether it goes before a conversation that would go on in its slot now."""
        if request.again or request.routing.priority > 0:
            return True
        ahead = self._age(request, now) + self._head_start(request.work)
        return ahead >= self._head_start(RETURNING * self.work)

    def _age(self, request: QueuedRequest, now: float) -> float:
        """Seconds that it has waited, with a share of what its conversation has."""
        before = seniority(request.waited, self.overtake, self.work)
        return now - request.arrived + before

    def _head_start(self, work: float) -> float:
        return head_start(work, self.overtake * self.work)


def _slower(count: Counter[str], client: str) -> float:
    """By which factor a client's requests age slower, because so many wait."""
    if len(count) < 2:
        return 1.0
    others = (count.total() - count[client]) / (len(count) - 1)
    return max(1.0, count[client] / (FLOOD * others))
