"""Least-busy policy: first come, first served, on the engine with fewest busy slots.

A request that an engine has failed goes before all others, then those of the highest
priority, as with the prediction. This policy serves for comparison, and for requests
that generate no text.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from balancer.fleet.engines import EngineCandidate, EngineKey
from balancer.fleet.slot_counts import SlotCounts
from balancer.routing.decision import (
    Decision,
    Refuse,
    RoutingRequest,
    Send,
    Verdict,
    Wait,
)
from balancer.routing.filters import filter_engines
from balancer.routing.queued_request import RETRY_AFTER, QueuedRequest, Settled


def choose(
    candidates: Sequence[EngineCandidate],
    routing: RoutingRequest,
    busy: Callable[[EngineKey], int],
) -> Decision:
    """Prefer the engine with fewest busy slots, then the smaller share, then the name.

    `busy` counts the slots that are taken on each engine, also by other balancers.
    """
    filtered = filter_engines(candidates, routing)
    if isinstance(filtered, Refuse):
        return filtered
    counts = [(busy(each.key), each) for each in filtered.open]
    free = [
        (count, each)
        for count, each in counts
        if not routing.slots or count + routing.slots <= each.engine.slots
    ]
    best = min(free, key=_rank, default=(0, None))[1]
    verdicts = filtered.out + tuple(
        Verdict(candidate=each, busy=count, reason=_reason(each, count, routing, best))
        for count, each in counts
    )
    if best is None:
        return Wait(verdicts)
    return Send(best, routing.slots, verdicts)


def _rank(counted: tuple[int, EngineCandidate]) -> tuple[int, float, str, str]:
    busy, each = counted
    return busy, busy / each.engine.slots, each.node, each.engine.id


def _reason(
    each: EngineCandidate,
    busy: int,
    routing: RoutingRequest,
    best: EngineCandidate | None,
) -> str | None:
    if each is best:
        return None
    if busy + routing.slots > each.engine.slots:
        return "every slot is busy"
    return "another has fewer busy slots"


class LeastBusy:
    """Chooses among the engines that `candidates` returns."""

    def __init__(
        self,
        candidates: Callable[[], Sequence[EngineCandidate]],
        slot_counts: SlotCounts,
    ) -> None:
        self._candidates = candidates
        self._slot_counts = slot_counts

    def refusal(
        self,
        request: QueuedRequest,
        now: float,  # noqa: ARG002 - it predicts nothing
        *,
        full: bool,  # noqa: ARG002
    ) -> Refuse | None:
        """Refuse what no engine can serve."""
        decision = self._choice(request)
        return decision if isinstance(decision, Refuse) else None

    def assign(
        self,
        waiting: Collection[QueuedRequest],
        now: float,  # noqa: ARG002
    ) -> list[Settled]:
        """Serve what can be served; no request waits behind one of another kind."""
        settled: list[Settled] = []
        unservable = set[tuple[object, ...]]()
        for request in sorted(waiting, key=_order):
            kind = request.routing.kind
            if kind in unservable:
                continue
            match self._choice(request):
                case Wait():
                    unservable.add(kind)
                case Send() as send:
                    self._slot_counts.take(send.to.key, send.slots)
                    settled.append((request, send))
                case refusal:
                    settled.append((request, refusal))
        return settled

    def explain(
        self,
        request: QueuedRequest,
        now: float,  # noqa: ARG002
    ) -> Iterable[Verdict]:
        """Say for each engine why a request waits for it, or cannot use it."""
        return self._choice(request).verdicts

    def recheck(self) -> None:
        """Do nothing: this policy does so each time."""

    def forget(self, request: QueuedRequest) -> None:
        """Do nothing: this policy keeps nothing of a waiting request."""

    def give_back(self, send: Send, *, left: bool = False) -> None:
        """Free its slots; where its client `left`, once the engine has noticed."""
        self._slot_counts.give_back(send.to.key, send.slots, left=left)

    def settle(self, send: Send) -> None:
        """Trust the last report on a slot whose client left."""
        self._slot_counts.settle(send.to.key)

    def patience(self, request: QueuedRequest, now: float) -> int:  # noqa: ARG002
        """Seconds after which it may try again; a constant."""
        return RETRY_AFTER

    def _choice(self, request: QueuedRequest) -> Decision:
        return choose(self._candidates(), request.routing, self._slot_counts.busy)


def _order(request: QueuedRequest) -> tuple[bool, int]:
    """Sort first those that an engine has failed, then by priority, then as before."""
    return not request.again, -request.routing.priority
