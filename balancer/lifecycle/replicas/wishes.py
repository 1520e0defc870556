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
    loads, unloads = dict[EngineKey, Load](), dict[EngineKey, Unload]()
    problems = list[LimitProblem]()
    protected = _protected(limits, candidates)
    for model, limit in sorted(limits.items()):
        mine = [each for each in candidates if each.serves(model)]
        there = [each for each in mine if is_loaded(each)]
        missing = (limit.min or 0) - len(there)
        surplus = 0 if limit.max is None else len(there) - limit.max
        if missing > 0:
            found = _places(model, mine, there, never, protected)
            why = f"at least {limit.min} of {model} shall be loaded"
            loads |= {each.key: Load(to=each, why=why) for each in found[:missing]}
            if len(found) < missing:
                problems.append(_too_few(model, limit, len(there) + len(found)))
        elif surplus > 0:
            idle = idlest(there)
            why = f"at most {limit.max} of {model} may be loaded"
            unloads |= {each.key: Unload(to=each, why=why) for each in idle[:surplus]}
            if len(idle) < surplus:
                problems.append(_too_many(model, limit, there))
    return ReplicaWishes(
        loads=tuple(loads.values()),
        unloads=tuple(unloads.values()),
        problems=tuple(problems),
    )


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


def _places(
    model: str,
    mine: Sequence[EngineCandidate],
    there: Sequence[EngineCandidate],
    never: Forbidden,
    protected: Mapping[EngineKey, frozenset[str]],
) -> list[EngineCandidate]:
    """Return an absent engine on each node without the model, the cheapest first."""
    taken = {each.node_id for each in there}
    best: dict[str, tuple[tuple[int, float], EngineCandidate]] = {}
    for each in mine:
        if each.engine.state != "absent" or state_of(each) is None:
            continue
        if each.node_id in taken or forbids(never, each):
            continue
        evicted = [(each.node_id, id_) for id_ in each.engine.evicts]
        if any(protected.get(key, frozenset()) - {model} for key in evicted):
            continue
        cost = len(evicted), each.engine.load_seconds
        if each.node_id not in best or cost < best[each.node_id][0]:
            best[each.node_id] = cost, each
    ranked = sorted(best.values(), key=lambda found: (found[0], found[1].node))
    return [each for _, each in ranked]


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


def _too_few(model: str, limit: ReplicaLimits, possible: int) -> LimitProblem:
    fewest = limit.min or 0
    return LimitProblem(
        model=model,
        code="below_min",
        reason=f"{fewest} shall be loaded, but only {possible} can be: other nodes lack"
        " its file or room, or must not load it",
        remedy="`edgeserve pull` on another node, or"
        f" `edgeserve models limit {model} --min {possible or 'none'}`",
    )


def _too_many(
    model: str, limit: ReplicaLimits, there: Sequence[EngineCandidate]
) -> LimitProblem:
    nodes = ", ".join(sorted(each.node for each in there if each.engine.pinned))
    return LimitProblem(
        model=model,
        code="above_max",
        reason=f"{limit.max} may be loaded at most, but it is pinned to {nodes}",
        remedy=f"`edgeserve models pin {model} --off --node NODE`, or"
        f" `edgeserve models limit {model} --max {len(there)}`",
    )
