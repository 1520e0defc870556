"""Whether it is worth waiting for an engine that has failed: its node may replace it.

Who asked it often knows before its node says so, let alone has done anything about it.
Once the node has said that it starts the engine anew, its requests wait for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable

from msgspec import structs

from balancer.attempt import GivenUp
from balancer.candidates import Candidate, Life
from balancer.current import Current
from balancer.request import Work
from balancer.schedule import Sifted, sift
from balancer.task import Task
from edgeserve.errors import EdgeserveError, NodeLost, NoNode

LOST_SECONDS = 3.0
"""A node learns at once of an engine that has died."""

HUNG_SECONDS = 15.0
"""Of one that hangs it does so after ten seconds, and a look or two."""


def hope_seconds(failure: EdgeserveError | None) -> float:
    """Return how long its node may take to give up an engine that failed so. Pure."""
    match failure:
        case GivenUp():
            return HUNG_SECONDS
        case NodeLost() | NoNode():
            return LOST_SECONDS
        case _:
            return 0.0


def living(candidates: Iterable[Candidate], tried: Collection[Life]) -> set[Life]:
    """Return which engines that were tried still serve, by their nodes' word. Pure."""
    return {
        each.life
        for each in candidates
        if each.life in tried
        and each.engine.state in {"ready", "busy"}
        and (each.barred is None or each.passing)
    }


async def given_up(current: Current, tried: Collection[Life], seconds: float) -> bool:
    """Wait until a node has given up an engine; False if that takes too long."""
    before = living(current.candidates, tried)
    if not before:
        return False
    try:
        async with asyncio.timeout(seconds):
            while before <= living(current.candidates, tried):
                await current.changed()
    except TimeoutError:
        return False
    return True


async def otherwise(current: Current, task: Task) -> bool:
    """Ask for less, or see an engine given up that will start anew; False if neither.

    What was answered so far is thrown away only where that is of use.
    """
    whole = task.whole
    if whole is not None and _is_served(current, whole, task) and task.widened():
        return True
    seconds = hope_seconds(task.failure)
    return await given_up(current, task.tried, seconds) or task.widened()


def _is_served(current: Current, work: Work, task: Task) -> bool:
    need = structs.replace(work.need, tried=frozenset(task.tried))
    sifted = sift(current.candidates, need)
    return isinstance(sifted, Sifted) and bool(sifted.open)


def reason(
    current: Current, failure: EdgeserveError, task: Task, refusal: EdgeserveError
) -> EdgeserveError:
    """Say what failed; or that it is not there any more and may be later, a 503."""
    later = isinstance(failure, NodeLost) and isinstance(refusal, NoNode)
    if not later or task.delivery.given.size or living(current.candidates, task.tried):
        return failure
    return NoNode(f"{failure}; {refusal}")
