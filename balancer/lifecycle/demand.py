"""Demand: which requests wait, and for which engines. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from balancer.fleet.engines import EngineCandidate
from balancer.routing.decision import Refuse, RoutingRequest
from balancer.routing.filters import filter_engines
from balancer.routing.queued_request import QueuedRequest


@dataclass(frozen=True, kw_only=True)
class Demand:
    """Waiting requests that the same engines can serve, the oldest first.

    `ready` engines can serve them once a slot is free, `pending` ones once they are
    loaded or are back.
    """

    requests: tuple[QueuedRequest, ...]
    ready: tuple[EngineCandidate, ...]
    pending: tuple[EngineCandidate, ...]

    @property
    def count(self) -> int:
        """How many requests wait."""
        return len(self.requests)

    @property
    def oldest(self) -> float:
        """When the first of them came."""
        return self.requests[0].arrived

    @property
    def routing(self) -> RoutingRequest:
        """What the first of them needs."""
        return self.requests[0].routing


def demands(
    waiting: Iterable[QueuedRequest], candidates: Sequence[EngineCandidate]
) -> list[Demand]:
    """Group what waits by what it needs; those that wait longest come first."""
    shortest = min((each.context for each in candidates), default=0)
    groups: dict[tuple[object, ...], list[QueuedRequest]] = {}
    for request in waiting:
        groups.setdefault(request.routing.needs(shortest), []).append(request)
    found = [_demand(requests, candidates) for requests in groups.values()]
    return sorted((each for each in found if each), key=lambda each: each.oldest)


def _demand(
    requests: list[QueuedRequest], candidates: Sequence[EngineCandidate]
) -> Demand | None:
    """Return it; None where no engine can serve the requests, which are refused."""
    requests = sorted(requests, key=lambda each: each.arrived)
    filtered = filter_engines(candidates, requests[0].routing)
    if isinstance(filtered, Refuse):
        return None
    pending = tuple(
        each.candidate
        for each in filtered.out
        # Those that are out for another reason would be so once they are loaded.
        if each.candidate.temporary and each.reason == each.candidate.unavailable
    )
    return Demand(requests=tuple(requests), ready=filtered.open, pending=pending)
