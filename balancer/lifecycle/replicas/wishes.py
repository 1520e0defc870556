"""Wishes: which loads and unloads would bring models within their limits. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from balancer.fleet.catalog import state_of
from balancer.fleet.current import LiveFleet
from balancer.fleet.engines import EngineCandidate, EngineKey
from balancer.fleet.members import Node
from balancer.lifecycle.placement import Load, Unload
from balancer.lifecycle.replicas.limits import FleetLimits, ReplicaLimits

Forbidden = Mapping[str, frozenset[str]]
"""Node id → the models that it must not load, in normal spelling."""


@dataclass(frozen=True, kw_only=True)
class LimitProblem:
    """Why a model is not within its limits, and what would help."""

    model: str
    code: Literal["below_min", "above_max"]
    reason: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class ReplicaWishes:
    """What to load and to unload, and what of the limits cannot be had."""

    loads: tuple[Load, ...] = ()
    unloads: tuple[Unload, ...] = ()
    problems: tuple[LimitProblem, ...] = ()


def wishes_of_limits(current: LiveFleet, limits: FleetLimits) -> list[Load | Unload]:
    """Return what is missing now, for the loader to order."""
    if not limits.all():
        return []
    never = forbidden(current.fleet.nodes)
    found = wishes(limits.all(), current.candidates, never)
    return [*found.loads, *found.unloads]


def forbidden(nodes: Iterable[Node]) -> Forbidden:
    """Return what each node was told never to load."""
    return {
        node.id: frozenset(each.model for each in node.report.desired if each.forbidden)
        for node in nodes
    }


def wishes(
    limits: Mapping[str, ReplicaLimits],
    candidates: Sequence[EngineCandidate],
    never: Forbidden,
) -> ReplicaWishes:
    """Return what is missing: each load on another node, each unload the idlest.

    An engine counts from the order to load it on, as it is `loading` then.
    """
    protected = _protected(limits, candidates)
    found = list[ReplicaWishes]()
    for model, limit in sorted(limits.items()):
        mine = [each for each in candidates if each.serves(model)]
        there = [each for each in mine if is_loaded(each)]
        if limit.min is not None and len(there) < limit.min:
            obstacles = {
                each.key: _obstacle(model, each, never, protected) for each in mine
            }
            found.append(_more(model, limit.min, mine, there, obstacles))
        elif limit.max is not None and len(there) > limit.max:
            found.append(_fewer(model, limit.max, there))
    return ReplicaWishes(
        loads=tuple({w.to.key: w for each in found for w in each.loads}.values()),
        unloads=tuple({w.to.key: w for each in found for w in each.unloads}.values()),
        problems=tuple(problem for each in found for problem in each.problems),
    )


def _more(
    model: str,
    fewest: int,
    mine: Iterable[EngineCandidate],
    there: Sequence[EngineCandidate],
    obstacles: Mapping[EngineKey, str],
) -> ReplicaWishes:
    """Wish for more engines, each on a node that has none."""
    taken = {each.node_id for each in there}
    spare = [each for each in mine if each.node_id not in taken]
    able = _cheapest(each for each in spare if not obstacles[each.key])
    possible = len(there) + len(able)
    why = f"at least {fewest} of {model} shall be loaded"
    loads = tuple(Load(to=each, why=why) for each in able[: fewest - len(there)])
    if possible >= fewest:
        return ReplicaWishes(loads=loads)
    blocked = (each for each in spare if obstacles[each.key])
    out = dict.fromkeys(f"{each.node}: {obstacles[each.key]}" for each in blocked)
    reason = "; ".join(out) or "no other node has its file"
    problem = LimitProblem(
        model=model,
        code="below_min",
        reason=f"{fewest} shall be loaded, but only {possible} can be: {reason}",
        remedy="`edgeserve pull` on another node, or"
        f" `edgeserve models limit {model} --min {possible or 'none'}`",
    )
    return ReplicaWishes(loads=loads, problems=(problem,))


def _fewer(model: str, most: int, there: Sequence[EngineCandidate]) -> ReplicaWishes:
    """Wish for fewer engines, the idlest first."""
    idle = idlest(there)
    why = f"at most {most} of {model} may be loaded"
    unloads = tuple(Unload(to=each, why=why) for each in idle[: len(there) - most])
    if len(there) - len(idle) <= most:
        return ReplicaWishes(unloads=unloads)
    nodes = ", ".join(sorted(each.node for each in there if each.engine.pinned))
    problem = LimitProblem(
        model=model,
        code="above_max",
        reason=f"{most} may be loaded at most, but it is pinned to {nodes}",
        remedy=f"`edgeserve models pin {model} --off --node NODE`, or"
        f" `edgeserve models limit {model} --max {len(there)}`",
    )
    return ReplicaWishes(unloads=unloads, problems=(problem,))


def is_loaded(candidate: EngineCandidate) -> bool:
    """Whether it has its model in memory, or is about to."""
    return state_of(candidate) in {"loaded", "loading"}


def load_cost(
    candidate: EngineCandidate, others: Iterable[EngineCandidate]
) -> tuple[int, float]:
    """Return what a load costs: requests in its way, then seconds.

    The seconds are those of its load, and of the reloads of the engines that leave.
    """
    gone = [
        each.engine
        for each in others
        if each.node_id == candidate.node_id
        and each.engine.id in candidate.engine.evicts
    ]
    seconds = candidate.engine.load_seconds + sum(each.load_seconds for each in gone)
    return sum(each.busy for each in gone), seconds


def idlest(loaded: Iterable[EngineCandidate]) -> list[EngineCandidate]:
    """Return those that may leave, the idlest first; of these, the quickest to load."""
    return sorted(
        (each for each in loaded if not each.engine.pinned),
        key=lambda each: (each.engine.busy, each.engine.load_seconds, each.node),
    )


def forbids(never: Forbidden, candidate: EngineCandidate) -> bool:
    """Whether its node must not load it."""
    return not never.get(candidate.node_id, frozenset()).isdisjoint(candidate.names)


def _obstacle(
    model: str,
    to: EngineCandidate,
    never: Forbidden,
    protected: Mapping[EngineKey, frozenset[str]],
) -> str:
    """Say why an engine is not to be loaded; "" where it can be."""
    if forbids(never, to):
        return "it is forbidden there"
    if to.engine.state != "absent" or state_of(to) is None:
        return to.unavailable or to.engine.state
    evicted = [(to.node_id, id_) for id_ in to.engine.evicts]
    needing = {name for key in evicted for name in protected.get(key, ())} - {model}
    if not needing:
        return ""
    return f"there it would evict {', '.join(sorted(needing))}, which has a minimum"


def _cheapest(able: Iterable[EngineCandidate]) -> list[EngineCandidate]:
    """Return the best engine of each node, the cheapest to load first."""
    best: dict[str, EngineCandidate] = {}
    for each in sorted(able, key=_cost):
        best.setdefault(each.node_id, each)
    return list(best.values())


def _cost(to: EngineCandidate) -> tuple[int, float, str]:
    return len(to.engine.evicts), to.engine.load_seconds, to.node


def _protected(
    limits: Mapping[str, ReplicaLimits], candidates: Sequence[EngineCandidate]
) -> Mapping[EngineKey, frozenset[str]]:
    """Return the engines that a minimum needs, with its model: none leaves for another.

    Otherwise two minimums in one memory would evict each other for ever.
    """
    found: dict[EngineKey, frozenset[str]] = {}
    for model, limit in limits.items():
        there = [each for each in candidates if each.serves(model) and is_loaded(each)]
        if limit.min and len(there) <= limit.min:
            for each in there:
                found[each.key] = found.get(each.key, frozenset()) | {model}
    return found
