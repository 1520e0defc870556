"""Conclusions: what an attempt says about its engine and about its request."""

from __future__ import annotations

import asyncio

from balancer.failover.attempt_watchdog import AttemptWatchdog
from balancer.failover.context import RequestContext
from balancer.failover.outcome import Broken, Elsewhere, GivenUp, Outcome
from balancer.failover.watchdog import Watchdog
from balancer.fleet.engines import EngineCandidate
from balancer.health.breaker import CircuitBreakers
from balancer.health.faults import Fault
from balancer.health.poison import SECONDS, Death, digest
from balancer.state import BalancerState
from edgeserve.errors import EdgeserveError, EndsEngines

WORD_SECONDS = 1.5
"""How long a node may take to say what has become of an engine."""


def failed(
    breaker: CircuitBreakers,
    task: RequestContext,
    to: EngineCandidate,
    error: EdgeserveError,
    fault: Fault,
) -> None:
    """Hold a failure against an engine; not one that may be the request's own.

    Of that a probe learns more, or another engine that answers the request.
    """
    if fault == "doubt" and not isinstance(error, GivenUp):
        task.questioned.add(to.key)
        breaker.question(to.key)
    else:
        breaker.failed(to.key, fault)


def answered(state: BalancerState, task: RequestContext, to: EngineCandidate) -> None:
    """Note that an engine is well; what it answers, another must not call an error."""
    state.breakers.answered(to.key)
    for key in task.questioned - {to.key}:
        state.breakers.failed(key, "doubt")
    if state.poison.knows:
        state.poison.answered(named(state, task))


def named(state: BalancerState, task: RequestContext) -> bytes:
    """Return the hash of a request, by what its client sent."""
    if not task.name:
        task.name = digest(task.request.path, task.request.body, state.key)
    return task.name


def struck(state: BalancerState, task: RequestContext) -> bool:
    """Whether an engine has died at this request. Raises EndsEngines for two."""
    poison = state.poison
    if not poison.knows:
        return False
    name = named(state, task)
    if poison.refuses(name, state.records.clock()):
        raise EndsEngines(SECONDS)
    return bool(poison.told(name, state.current.candidates))


def died(
    state: BalancerState,
    watch: Watchdog,
    task: RequestContext,
    watchdog: AttemptWatchdog,
    to: EngineCandidate,
    outcome: Outcome,
) -> None:
    """Remember an engine that died at a request, where that may be why."""
    match outcome:
        case Elsewhere() if outcome.ended:
            error: EdgeserveError = outcome.error
        case Broken(error, "engine") if watch.alone(watchdog):
            pass
        case _:
            return
    death = Death(to.life, hung=isinstance(error, GivenUp))
    state.poison.note(named(state, task), death)


async def condemned(state: BalancerState, task: RequestContext) -> None:
    """Raise EndsEngines where two engines died at a request, once that is known."""
    poison, current = state.poison, state.current
    name = task.name
    if len(poison.deaths.get(name, ())) < 2:
        return
    why = str(task.failure or "")
    try:
        async with asyncio.timeout(WORD_SECONDS):
            while not poison.judged(name, current.candidates, state.records.clock()):
                await current.changed()
    except TimeoutError:
        return
    raise EndsEngines(SECONDS, why)
