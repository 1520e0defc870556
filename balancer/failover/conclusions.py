"""Conclusions: what an attempt shows about its engine and about its request."""

from __future__ import annotations

import asyncio

from balancer.failover.context import RequestContext
from balancer.failover.outcome import Broken, Elsewhere, GivenUp, Outcome
from balancer.failover.watchdog import AttemptWatchdog, Watchdog
from balancer.fleet.engines import EngineCandidate
from balancer.health.breaker import CircuitBreakers
from balancer.health.faults import Fault
from balancer.health.poison import SECONDS, Death, digest
from balancer.state import BalancerState
from edgeserve.errors import EdgeserveError, EndsEngines

REPORT_SECONDS = 1.5
"""How long a node may take to report what became of an engine."""


def note_failure(
    breakers: CircuitBreakers,
    context: RequestContext,
    to: EngineCandidate,
    error: EdgeserveError,
    fault: Fault,
) -> None:
    """Count a failure against an engine, unless it may be the request's own.

    Then a probe decides, or another engine that answers the request. Engines that it
    left for this one may be asked again.
    """
    context.allow_return()
    if fault == "doubt" and not isinstance(error, GivenUp):
        context.doubted_engines.add(to.key)
        breakers.question(to.key)
    else:
        breakers.failed(to.key, fault)


def note_answer(
    state: BalancerState, context: RequestContext, to: EngineCandidate
) -> None:
    """Note that an engine is well; one that refused the same request may not be."""
    state.breakers.answered(to.key)
    if to.engine.served is not None and to.engine.served.too_long:
        knowledge = state.predictive.fleet_model.servers
        knowledge.answered(to.key, context.request.routing.tokens)
    for key in context.doubted_engines - {to.key}:
        state.breakers.failed(key, "doubt")
    if not state.poison.empty:
        state.poison.forget(digest_of(state, context))


def digest_of(state: BalancerState, context: RequestContext) -> bytes:
    """Return the hash of a request, by what its client sent."""
    if not context.digest:
        received = context.received
        context.digest = digest(received.path, received.body, state.key)
    return context.digest


def is_suspect(state: BalancerState, context: RequestContext) -> bool:
    """Whether an engine has died at this request. Raises EndsEngines after two."""
    poison = state.poison
    if poison.empty:
        return False
    name = digest_of(state, context)
    if poison.refuses(name, state.records.clock()):
        raise EndsEngines(SECONDS)
    return bool(poison.deaths_at(name, state.current.candidates))


def note_death(
    state: BalancerState,
    watchdog: Watchdog,
    context: RequestContext,
    attempt: AttemptWatchdog,
    to: EngineCandidate,
    outcome: Outcome,
) -> None:
    """Remember an engine that died at a request, where that may be the cause."""
    match outcome:
        case Elsewhere() if outcome.ended:
            error: EdgeserveError = outcome.error
        case Broken(error, "engine") if watchdog.is_alone(attempt):
            pass
        case _:
            return
    death = Death(to.incarnation, hung=isinstance(error, GivenUp))
    state.poison.note(digest_of(state, context), death)


async def refuse_poison(state: BalancerState, context: RequestContext) -> None:
    """Raise EndsEngines once it is known that two engines died at a request."""
    poison, current = state.poison, state.current
    name = context.digest
    if len(poison.deaths.get(name, ())) < 2:
        return
    why = str(context.failure or "")
    try:
        async with asyncio.timeout(REPORT_SECONDS):
            while not poison.proved(name, current.candidates, state.records.clock()):
                await current.changed()
    except TimeoutError:
        return
    raise EndsEngines(SECONDS, why)
