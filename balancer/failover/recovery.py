"""Recovery: wait for a failed engine to come back, where that is worth it.

Who asked it often knows before its node says so, let alone has done anything about it.
Once the node has said that it starts the engine anew, its requests wait for that. Or it
was a false alarm: once a probe has shown so, the same process is asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping

from msgspec import structs

from balancer.failover.context import RequestContext
from balancer.failover.outcome import GivenUp
from balancer.fleet.current import LiveFleet
from balancer.fleet.engines import EngineCandidate, EngineIncarnation
from balancer.health.breaker import GOOD
from balancer.request import InferenceRequest
from balancer.routing.filters import Filtered, filter_engines
from edgeserve.errors import EdgeserveError, NodeLost, NoNode

LOST_SECONDS = 3.0
"""A node learns at once of an engine that has died; a probe comes after a second."""

HUNG_SECONDS = 60.0
"""Of one that hangs it does so after ten seconds at best."""


def recovery_seconds(failure: EdgeserveError | None) -> float:
    """Return how long its node may take to give up an engine that failed so. Pure."""
    match failure:
        case GivenUp():
            return HUNG_SECONDS
        case NodeLost() | NoNode():
            return LOST_SECONDS
        case _:
            return 0.0


def living(
    candidates: Iterable[EngineCandidate], tried: Collection[EngineIncarnation]
) -> dict[EngineIncarnation, int]:
    """Return which engines that were tried still serve, and their ranks. Pure."""
    return {
        each.life: each.rank
        for each in candidates
        if each.life in tried
        and each.engine.state in {"ready", "busy"}
        and (each.barred is None or each.passing)
    }


def proved(
    before: Mapping[EngineIncarnation, int], now: Mapping[EngineIncarnation, int]
) -> set[EngineIncarnation]:
    """Return which engines were under suspicion before and are not any more. Pure."""
    doubted = (life for life, rank in before.items() if rank != GOOD)
    return {life for life in doubted if now.get(life) == GOOD}


async def may_ask(
    current: LiveFleet, tried: set[EngineIncarnation], seconds: float
) -> bool:
    """Wait until an engine was given up, or shown to be well: that one is not tried.

    False if that takes too long.
    """
    before = living(current.candidates, tried)
    if not before:
        return False
    try:
        async with asyncio.timeout(seconds):
            while before.keys() <= (now := living(current.candidates, tried)).keys():
                if well := proved(before, now):
                    tried -= well
                    return True
                await current.changed()
    except TimeoutError:
        return False
    return True


async def await_recovery(current: LiveFleet, task: RequestContext) -> bool:
    """Ask for less, or see an engine given up or found well; False if neither.

    What was answered so far is thrown away only where that is of use.
    """
    whole = task.whole
    if whole is not None and _is_served(current, whole, task) and task.widened():
        return True
    seconds = recovery_seconds(task.failure)
    return await may_ask(current, task.tried, seconds) or task.widened()


def _is_served(
    current: LiveFleet, work: InferenceRequest, task: RequestContext
) -> bool:
    need = structs.replace(work.need, tried=frozenset(task.tried))
    sifted = filter_engines(current.candidates, need)
    return isinstance(sifted, Filtered) and bool(sifted.open)


def reason(
    current: LiveFleet,
    failure: EdgeserveError,
    task: RequestContext,
    refusal: EdgeserveError,
) -> EdgeserveError:
    """Say what failed; or that it is not there any more and may be later, a 503."""
    later = isinstance(failure, NodeLost) and isinstance(refusal, NoNode)
    if not later or task.delivery.given.size or living(current.candidates, task.tried):
        return failure
    return NoNode(f"{failure}; {refusal}")
