"""Placement: which engine to load for requests that wait, and where. Pure.

    seconds = until those in its way may leave + until they are idle
              + its load + reading the prompt

Of one node's engines the one that evicts least wins, then the one of the best quality;
of several nodes the one with the fewest seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from balancer.fleet.engines import ASLEEP, EngineCandidate, EngineKey, seconds_left
from balancer.lifecycle.demand import Demand
from balancer.lifecycle.swap import Resident, stays, usual_quantum
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.speed import Speed

RECOVERY_SECONDS = 10.0
"""An engine that failed, or whose node fell silent, may be back in so many seconds."""

HICCUP_SECONDS = 2.0
"""So long nothing is loaded elsewhere: a stream that broke is back in less."""

UNKNOWN_TOKENS = 100.0
"""Tokens that a request of another balancer may still write."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """Load an engine. `drain`: engines in its way finish their requests first.

    `seconds`: until the first token of the request that waits longest, as predicted.
    """

    to: EngineCandidate
    why: str
    drain: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Unload:
    """Unload an engine, once its requests have ended."""

    to: EngineCandidate
    why: str


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """The fleet at one moment, as placement sees it.

    `up` are the ids of nodes that can be asked; `ordered` the engines whose load was
    ordered, which their nodes do not show yet, with the seconds until they are ready;
    `held` are not to be asked for now, and of `busy` ones a node said that engines in
    their way are. `resident` describes an engine that is in the way, `speed` is what is
    known of one. `patience`: the longest wait of a request.
    """

    now: float
    engines: Mapping[EngineKey, EngineCandidate]
    up: frozenset[str]
    ordered: Mapping[EngineKey, float]
    held: frozenset[EngineKey]
    busy: frozenset[EngineKey]
    resident: Callable[[EngineKey], Resident]
    speed: Callable[[EngineCandidate], Speed]
    patience: float


@dataclass(frozen=True, kw_only=True)
class Option:
    """One engine that could be loaded: `stays` seconds until that may be ordered.

    `drain`: something still runs on what is in its way. `seconds` are until the first
    token.
    """

    to: EngineCandidate
    stays: float
    drain: bool
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is done for one demand; `seconds` until its first token, where known."""

    load: Load | None = None
    seconds: float | None = None


NOTHING = Plan()


def plan(demand: Demand, outlook: Outlook) -> Plan:
    """Decide whether to load an engine for requests, and which."""
    if demand.ready:
        return NOTHING
    coming = [
        _ready_in(each, outlook) + _reading(each, demand, outlook)
        for each in demand.pending
        if _is_coming(each, outlook)
    ]
    if coming:
        return Plan(seconds=min(coming))
    best = min(options(demand, outlook), key=lambda each: each.seconds, default=None)
    if best is None:
        return NOTHING
    waited = outlook.now - demand.oldest
    if best.stays > 0 or waited < _recovery(demand, best):
        return Plan(seconds=best.seconds)
    load = Load(to=best.to, why=_why(demand), drain=best.drain, seconds=best.seconds)
    return Plan(load=load, seconds=best.seconds)


def options(demand: Demand, outlook: Outlook) -> list[Option]:
    """Return the best engine to load on each node."""
    # A node that was just asked for an engine has other plans than it reports.
    asked = {node for node, _ in outlook.ordered}
    by_node: dict[str, list[Option]] = {}
    for each in _alone_first(demand.pending):
        free = each.node_id in outlook.up and each.node_id not in asked
        if each.engine.state == "absent" and free and each.key not in outlook.held:
            option = _option(each, demand, outlook)
            by_node.setdefault(each.node_id, []).append(option)
    return [min(found, key=_worse) for found in by_node.values()]


def _alone_first(pending: Sequence[EngineCandidate]) -> Iterable[EngineCandidate]:
    """Leave out groups where a single machine can serve the requests, too."""
    alone = [each for each in pending if not each.engine.group]
    return alone or pending


def _worse(option: Option) -> tuple[bool, int, int]:
    engine = option.to.engine
    return option.stays > 0, len(engine.evicts), -engine.memory


def _option(to: EngineCandidate, demand: Demand, outlook: Outlook) -> Option:
    in_the_way = [
        outlook.resident((to.node_id, id_))
        for id_ in to.engine.evicts
        if (to.node_id, id_) in outlook.engines
    ]
    stay = max((_stays(each, to, demand, outlook) for each in in_the_way), default=0.0)
    drains = max((each.drains for each in in_the_way), default=0.0)
    load = to.engine.load_seconds + _reading(to, demand, outlook)
    return Option(
        to=to,
        stays=stay,
        drain=any(each.busy for each in in_the_way) or _is_due(to, demand, outlook),
        seconds=max(stay, drains) + load,
    )


def _is_due(to: EngineCandidate, demand: Demand, outlook: Outlook) -> bool:
    """Whether its turn has come, though its node sees more in its way than we do."""
    turn = usual_quantum(to.engine.load_seconds)
    return to.key in outlook.busy and outlook.now - demand.oldest >= turn


def _stays(
    resident: Resident, to: EngineCandidate, demand: Demand, outlook: Outlook
) -> float:
    return stays(
        resident,
        load_seconds=to.engine.load_seconds,
        oldest=demand.oldest,
        patience=outlook.patience,
        now=outlook.now,
    )


def _is_coming(each: EngineCandidate, outlook: Outlook) -> bool:
    """Whether it loads, or was told to."""
    if each.node_id not in outlook.up:
        return False
    return each.engine.state == "loading" or each.key in outlook.ordered


def _ready_in(each: EngineCandidate, outlook: Outlook) -> float:
    if each.engine.state == "loading":
        return seconds_left(each.engine)
    return outlook.ordered[each.key]


def _reading(each: EngineCandidate, demand: Demand, outlook: Outlook) -> float:
    """Seconds to read the prompt of the request that waits longest."""
    speed = outlook.speed(each)
    return speed.overhead + speed.prefill_seconds(demand.routing.tokens, 0)


def _recovery(demand: Demand, best: Option) -> float:
    """Seconds to wait for an engine that may be back by itself.

    It is given as long as the load elsewhere takes: so the wait is at most twice as
    long as the better of the two.
    """
    away = any(
        each.engine.state not in PASSED_BY and each.unavailable != ASLEEP
        for each in demand.pending
    )
    # Of an engine that has just failed a request, its node may not know yet.
    if not away and not demand.routing.tried:
        return 0.0
    return max(HICCUP_SECONDS, min(best.seconds, RECOVERY_SECONDS))


PASSED_BY = frozenset(("absent", "leaving"))
"""States of engines that will not be back by themselves."""


def _why(demand: Demand) -> str:
    count = "1 request waits" if demand.count == 1 else f"{demand.count} requests wait"
    return f"{count} for {demand.routing.model or 'any model'}"


def drain_seconds(model: EngineModel | None, now: float) -> float:
    """Return how long it takes until what runs on an engine has ended."""
    if model is None or not model.taken:
        return 0.0
    per_token = model.speed.token_seconds(model.taken) * model.scale
    tokens = model.load.totals.tokens
    left = [each.left(tokens) for each in model.load.requests.values()]
    if model.foreign:
        left.append(UNKNOWN_TOKENS)
    reading = max(0.0, model.read_until - now)
    return reading + max(left, default=0.0) * per_token


def wanted(demands: Iterable[Demand], key: EngineKey) -> Sequence[float]:
    """Return when each waiting request came that a loaded engine can serve."""
    return [
        request.arrived
        for demand in demands
        if any(each.key == key for each in demand.ready)
        for request in demand.requests
    ]
