"""Recovery: wait for a failed engine to come back, where that is worth it.

The balancer often learns of a failure before the node reports it, and before the node
restarts the engine. Once the node reports the restart, requests wait for that. Where it
was a false alarm, and a probe has shown so, the same process is asked again.
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
from balancer.routing.filters import Filtered, filter_engines, goes_on
from edgeserve.errors import EdgeserveError, NodeLost, NoNode, UnknownModel
from edgeserve.openai import normal

LOST_SECONDS = 3.0
"""A node notices a dead engine at once; a probe comes after a second."""

HUNG_SECONDS = 60.0
"""A node notices a hung engine after ten seconds at best."""


def recovery_seconds(failure: EdgeserveError | None) -> float:
    """Return how long a node may take to give up an engine that failed so. Pure."""
    match failure:
        case GivenUp():
            return HUNG_SECONDS
        case NodeLost() | NoNode():
            return LOST_SECONDS
        case _:
            return 0.0


def serving(
    candidates: Iterable[EngineCandidate], tried: Collection[EngineIncarnation]
) -> dict[EngineIncarnation, int]:
    """Return the tried engines that still serve, with their ranks. Pure."""
    return {
        each.incarnation: each.rank
        for each in candidates
        if each.incarnation in tried
        and each.engine.state in {"ready", "busy"}
        and (each.unavailable is None or each.temporary)
    }


def cleared(
    before: Mapping[EngineIncarnation, int], now: Mapping[EngineIncarnation, int]
) -> set[EngineIncarnation]:
    """Return the engines that were suspect before and are good now. Pure."""
    suspects = (incarnation for incarnation, rank in before.items() if rank != GOOD)
    return {incarnation for incarnation in suspects if now.get(incarnation) == GOOD}


async def wait_for_change(
    current: LiveFleet, tried: set[EngineIncarnation], seconds: float
) -> bool:
    """Wait until a tried engine is given up, or found well and so not tried any more.

    False if that takes too long.
    """
    before = serving(current.candidates, tried)
    if not before:
        return False
    try:
        async with asyncio.timeout(seconds):
            while before.keys() <= (now := serving(current.candidates, tried)).keys():
                if well := cleared(before, now):
                    tried -= well
                    return True
                await current.changed()
    except TimeoutError:
        return False
    return True


async def await_recovery(current: LiveFleet, context: RequestContext) -> bool:
    """Widen the request, or wait for a tried engine; False where neither helps.

    The answer so far is dropped only where that is of use.
    """
    original = context.original
    served = original is not None and _is_served(current, original, context)
    if served and context.widen():
        return True
    seconds = recovery_seconds(context.failure)
    if not _may_go_on(current, context):
        seconds = 0.0
    return await wait_for_change(current, context.tried, seconds) or context.widen()


def _may_go_on(current: LiveFleet, context: RequestContext) -> bool:
    """Whether an engine that it tried could have the rest of its answer at all."""
    resumes = context.request.routing.resumes
    return not resumes or any(
        goes_on(each.engine, resumes)
        for each in current.candidates
        if each.incarnation in context.tried
    )


def _is_served(
    current: LiveFleet, request: InferenceRequest, context: RequestContext
) -> bool:
    routing = structs.replace(
        request.routing,
        tried=frozenset(context.tried),
        resumes="" if context.can_restart else context.request.routing.resumes,
    )
    filtered = filter_engines(current.candidates, routing)
    return isinstance(filtered, Filtered) and bool(filtered.open)


def final_error(
    current: LiveFleet, context: RequestContext, refusal: EdgeserveError
) -> EdgeserveError:
    """Return what failed, if anything; a 503 where the engine may come back."""
    failure = context.failure
    if failure is None:
        return _with_reason(current, refusal)
    later = isinstance(failure, NodeLost) and isinstance(refusal, NoNode)
    started = context.response.sent.size
    if started and not _may_go_on(current, context):
        return NodeLost(f"{failure}; its answer cannot be continued: {refusal}")
    if not later or started or serving(current.candidates, context.tried):
        return failure
    return NoNode(f"{failure}; {refusal}")


def _with_reason(current: LiveFleet, refusal: EdgeserveError) -> EdgeserveError:
    """Say why an unknown model is not served, if it is on the disk of some node."""
    if type(refusal) is not UnknownModel:
        return refusal
    for node in current.fleet.nodes:
        for each in node.report.available:
            if refusal.model in {normal(each.model), normal(each.variant)}:
                why = f"{each.variant} is on {node.name}, but {each.reason}"
                return UnknownModel(
                    refusal.model, refusal.known, f"{why}; {each.remedy}"
                )
    return refusal
