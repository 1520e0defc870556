"""Loops: balancers that are servers of each other would ask each other for ever. Pure.

Each adds its id to a header of what it sends to another one, as proxies do with `Via`.
"""

from __future__ import annotations

from collections.abc import Iterable

from balancer.fleet.catalog import state_of
from balancer.fleet.engines import EngineCandidate
from edgeserve.errors import LoopDetected

MOST = 8
"""Balancers one behind another; the header may come from anyone."""


def check_loop(passed: str, own: str) -> None:
    """Refuse a request that passed through this balancer before, or through too many.

    `passed` is the header that it came with. Raises LoopDetected.
    """
    ids = passed.split(",")
    if own in ids:
        raise LoopDetected(
            "this balancer is a server of a server of its own, and has no other engine"
            " for this model: take one out of the other's [[server]] tables"
        )
    if len(ids) > MOST:
        raise LoopDetected(
            f"the request passed through {len(ids)} balancers, more than {MOST}: name"
            " the last one as a server of the first"
        )


def ways_around(
    candidates: Iterable[EngineCandidate], asker: str
) -> dict[str, tuple[str, ...]]:
    """Return the balancers on the shortest way to each model that avoids one of them.

    Else two that name each other would show each other for ever what neither has.
    """
    found = dict[str, tuple[str, ...]]()
    for each in candidates:
        way = each.engine.served.behind if each.engine.served else ()
        if state_of(each) is None or asker in way or len(way) >= MOST:
            continue
        for name in each.listed:
            if name not in found or len(way) < len(found[name]):
                found[name] = way
    return found


def passed_on(passed: str, own: str) -> str:
    """Return the header for the next one."""
    return f"{passed},{own}" if passed else own
