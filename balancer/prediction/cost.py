"""Cost: the predicted seconds of a request on each engine, by part. Pure.

An engine that cannot win even with the best cache hit that is possible is not examined
exactly. Of 32 engines about four are, which keeps a decision within tens of µs.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import msgspec

from balancer.prediction.engine_model import EngineModel
from balancer.prediction.slot_match import RequestFeatures, pick
from balancer.prediction.speed import FEW

OUT = -2
"""In the place of a slot: the engine could not win and was not examined exactly."""


class CostEstimate(msgspec.Struct, frozen=True):
    """One engine's predicted seconds for one request, as `weights` explains them.

    `wait` for a slot, `ahead` for prompts that are being read there, `read` the prompt,
    `write` the answer; `cost` is the weighted sum that decides. Where not `exact`,
    `read` and `cost` are the least possible.
    """

    engine: EngineModel
    slot: int
    cached: float
    tokens: float
    wait: float
    ahead: float
    read: float
    write: float
    loss: float
    cost: float

    @property
    def exact(self) -> bool:
        """Whether its slots were examined."""
        return self.slot != OUT

    @property
    def first(self) -> float:
        """Seconds from now to the first token."""
        return self.engine.speed.overhead + self.wait + self.ahead + self.read


class Considered:
    """What was found about every engine, for the explanation.

    `exact` are those that were examined. `out` are the others: their wait, read, write
    and cost, kept as numbers because most are never shown.
    """

    __slots__ = ("exact", "out", "tokens")

    def __init__(self, tokens: float) -> None:
        self.tokens = tokens
        self.exact: list[CostEstimate] = []
        self.out: list[tuple[EngineModel, float, float, float, float]] = []

    def all(self) -> list[CostEstimate]:
        """Return every engine, the cheapest first."""
        out = [
            CostEstimate(
                engine=engine,
                slot=OUT,
                cached=0.0,
                tokens=self.tokens,
                wait=wait,
                ahead=0.0,
                read=read,
                write=write,
                loss=0.0,
                cost=cost,
            )
            for engine, wait, read, write, cost in self.out
        ]
        return sorted(self.exact + out, key=_cost)


def _cost(estimate: CostEstimate) -> float:
    return estimate.cost


def cheapest(
    features: RequestFeatures, engines: Sequence[EngineModel]
) -> tuple[CostEstimate | None, Considered]:
    """Return the engine that costs least, free or not; None where there is none."""
    now, touched = features.now, features.touched
    tokens, answer = features.tokens, features.answer
    least_fresh = max(1.0, tokens - max(features.most, default=0.0))
    if features.hint >= 0:
        least_fresh = 1.0
    considered = Considered(tokens)
    out, one = considered.out.append, features.slots == 1
    best: CostEstimate | None = None
    least = inf
    for engine in engines:
        frees = engine.free_at if one else engine.free(features.slots)
        # No `max` here: a call costs as much as the rest of the line.
        wait = frees - now if frees > now else 0.0
        fresh = least_fresh if engine.mask & touched else tokens
        read = fresh * (engine.per_read + engine.per_context * (tokens - fresh / 2))
        cost = wait + read * engine.read_price + answer * engine.token_price
        if cost >= least and engine.host is None:
            out((engine, wait, read, answer * engine.per_token, cost))
            continue
        each = _exact(features, engine, wait)
        considered.exact.append(each)
        if each.cost < least:
            best, least = each, each.cost
    return best, considered


def _exact(features: RequestFeatures, engine: EngineModel, wait: float) -> CostEstimate:
    slot, cached, loss = pick(features, engine)
    answer = features.answer
    ahead = 0.0
    if wait == 0.0 and engine.read_until > features.now:
        ahead = engine.ahead(slot)
    fresh = features.tokens - cached
    if fresh < 1.0:
        fresh = 1.0
    pairs = fresh * (cached + fresh / 2)
    read = fresh * engine.per_read + engine.per_context * pairs
    if fresh < FEW:
        read += engine.few_start + engine.per_few * pairs
    loss *= engine.weights.loss * engine.read_price
    first = engine.learner.speed.overhead + wait + ahead
    risk = engine.risk * (1 + wait + ahead)
    cost = first + read * engine.read_price + answer * engine.token_price + loss + risk
    write = answer * engine.per_token
    return CostEstimate(
        engine=engine,
        slot=slot,
        cached=cached,
        tokens=features.tokens,
        wait=wait,
        ahead=ahead,
        read=read,
        write=write,
        loss=loss,
        cost=cost,
    )
