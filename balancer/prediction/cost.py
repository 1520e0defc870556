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


class CostEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """One engine's predicted seconds for one request, as `weights` explains them.

    `wait` for a slot, `ahead` for batches of other requests there, `read` the prompt,
    `write` the answer; `loss` what reading again may take that is lost with the slot's
    content; `cost` is the weighted sum that decides. Where not `exact`, `read` and
    `cost` are the least possible.
    """

    engine: EngineModel
    tokens: float
    wait: float
    read: float
    write: float
    cost: float
    slot: int = OUT
    cached: float = 0.0
    ahead: float = 0.0
    loss: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether its slots were examined."""
        return self.slot != OUT

    @property
    def work(self) -> float:
        """Seconds of a slot that it takes here, or causes to be read again."""
        return self.ahead + self.read + self.write + self.loss

    @property
    def joules(self) -> float:
        """What it takes above an idle machine; answers written at once share it."""
        shared = self.write / (1 + self.engine.load.writing)
        return self.engine.watts * (self.read + shared)

    @property
    def first(self) -> float:
        """Seconds from now to the first token."""
        return self.engine.speed.overhead + self.wait + self.ahead + self.read


Bound = tuple[EngineModel, float, float, float, float, float]
"""An engine that was not examined: its tokens, wait, read, write and cost, kept as
numbers because most are never shown."""

Considered = list[CostEstimate | Bound]
"""What was found about every engine, for the explanation."""


def estimates(considered: Considered) -> list[CostEstimate]:
    """Return every engine, the cheapest first; of equal ones, those examined first."""
    found = [
        each
        if isinstance(each, CostEstimate)
        else CostEstimate(
            engine=each[0],
            tokens=each[1],
            wait=each[2],
            read=each[3],
            write=each[4],
            cost=each[5],
        )
        for each in considered
    ]
    return sorted(found, key=lambda each: (each.cost, not each.exact))


def cheapest(
    features: RequestFeatures, engines: Sequence[EngineModel]
) -> tuple[CostEstimate | None, Considered]:
    """Return the engine that costs least, free or not; None where there is none."""
    now, touched, late = features.now, features.touched, features.late
    tokens, answer = features.tokens, features.answer
    least_fresh = max(1.0, tokens - max(features.most, default=0.0))
    if features.hint >= 0:
        least_fresh = 1.0
    considered: Considered = []
    found, one = considered.append, features.slots == 1
    best: CostEstimate | None = None
    least = inf
    for engine in engines:
        frees = engine.free_at if one else engine.free(features.slots)
        # No `max` here: a call costs as much as the rest of the line.
        wait = frees - now if frees > now else 0.0
        fresh = least_fresh if engine.mask & touched else tokens
        read = fresh * (engine.per_read + engine.per_context * (tokens - fresh / 2))
        cost = wait + read * engine.read_price + answer * engine.token_price
        if late and cost < least:
            cost += late * (wait + read) * (wait + read)
        if cost >= least and engine.host is None:
            found((engine, tokens, wait, read, answer * engine.per_token, cost))
            continue
        each = _exact(features, engine, wait)
        found(each)
        if each.cost < least:
            best, least = each, each.cost
    return best, considered


def examined(
    features: RequestFeatures, engine: EngineModel, least: float
) -> CostEstimate | Bound:
    """Return what `cheapest` finds about one engine; not exact where above `least`."""
    tokens, answer = features.tokens, features.answer
    frees = engine.free_at if features.slots == 1 else engine.free(features.slots)
    wait = max(frees - features.now, 0.0)
    fresh = tokens
    if engine.mask & features.touched:
        most = max(features.most, default=0.0) if features.hint < 0 else tokens
        fresh = max(1.0, tokens - most)
    read = fresh * (engine.per_read + engine.per_context * (tokens - fresh / 2))
    late = features.late
    cost = wait + read * engine.read_price + answer * engine.token_price
    cost += late * (wait + read) * (wait + read)
    if cost > least and engine.host is None:
        return engine, tokens, wait, read, answer * engine.per_token, cost
    return _exact(features, engine, wait)


def _exact(features: RequestFeatures, engine: EngineModel, wait: float) -> CostEstimate:
    slot, cached, loss = pick(features, engine)
    answer = features.answer
    fresh = features.tokens - cached
    if fresh < 1.0:
        fresh = 1.0
    pairs = fresh * (cached + fresh / 2)
    read = fresh * engine.per_read + engine.per_context * pairs
    if fresh < FEW:
        read += engine.few_start + engine.per_few * pairs
    ahead = 0.0
    if wait == 0.0 and engine.load.requests:
        ahead = engine.ahead(slot, read, features.now)
    lost = loss * engine.weights.loss * engine.read_price
    first = engine.learner.speed.overhead + wait + ahead
    risk = engine.risk * (1 + wait + ahead)
    cost = first + read * engine.read_price + answer * engine.token_price + lost + risk
    cost += features.late * (first + read) * (first + read)
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
