"""The policies by the name they go under on the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from balancer.simulate.classic import (
    CacheAware,
    LeastConnections,
    LeastConnectionsBySlots,
    RoundRobin,
    SessionHash,
    TwoChoices,
)
from balancer.simulate.edge import Edge, Oracle
from balancer.simulate.fleets import Machine
from balancer.simulate.world import Policy

Make = Callable[[Sequence[Machine]], Policy]

CLASSIC: dict[str, Make] = {
    "round-robin": RoundRobin,
    "least-conn": LeastConnections,
    "least-conn-slots": LeastConnectionsBySlots,
    "two-choices": TwoChoices,
    "session-hash": SessionHash,
}
"""What every load balancer has."""

CACHE_AWARE: dict[str, Make] = {
    "cache-aware": CacheAware,
    "cache-aware-tuned": partial(CacheAware, absolute=2),
}
"""SGLang's router with its stock thresholds, and for engines of few slots."""

POLICIES: dict[str, Make] = {
    **CLASSIC,
    **CACHE_AWARE,
    "edgeserve": Edge,
    "oracle": Oracle,
}
