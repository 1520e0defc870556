"""Cost: what a request costs on each engine, in seconds and in parts. Pure.

An engine that could not win even if its slots held all that they may hold is not looked
at closer: of 32 engines about four are, which keeps a decision within tens of µs.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import msgspec

from balancer.prediction.engine_model import EngineModel
from balancer.prediction.slot_match import RequestFeatures, pick
from balancer.prediction.speed import FEW

OUT = -2
"""In the place of a slot: the engine was out of the race at once."""


class CostEstimate(msgspec.Struct, frozen=True):
    """One engine's predicted seconds for one request, as `weights` explains them.

    `wait` for a slot, `ahead` for prompts that are being read there, `read` the prompt,
    `write` the answer; `cost` is the sum that decided. Where not `exact`, the engine
    was out of the race at once: `read` and `cost` are the least possible.
    """

    lane: EngineModel
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
        """Whether all of it was looked at."""
        return self.slot != OUT

    @property
    def first(self) -> float:
        """Seconds from now to the first token."""
        return self.lane.speed.overhead + self.wait + self.ahead + self.read


class Considered:
    """What was found about every engine, for the explanation.

    `exact` are those that were looked at, `out` the others: their wait, read, write and
    cost, kept as numbers since most will never be asked for.
    """

    __slots__ = ("exact", "out", "tokens")

    def __init__(self, tokens: float) -> None:
        self.tokens = tokens
        self.exact: list[CostEstimate] = []
        self.out: list[tuple[EngineModel, float, float, float, float]] = []

    def all(self) -> list[CostEstimate]:
        """Every engine, the cheapest first."""
        out = [
            CostEstimate(
                lane=lane,
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
            for lane, wait, read, write, cost in self.out
        ]
        return sorted(self.exact + out, key=_cost)


def _cost(parts: CostEstimate) -> float:
    return parts.cost


def cheapest(
    question: RequestFeatures, lanes: Sequence[EngineModel]
) -> tuple[CostEstimate | None, Considered]:
    """The engine that costs least, free or not; None where there is none."""
    now, touched = question.now, question.touched
    tokens, answer = question.tokens, question.answer
    least_fresh = max(1.0, tokens - max(question.most, default=0.0))
    if question.hint >= 0:
        least_fresh = 1.0
    seen = Considered(tokens)
    out, one = seen.out.append, question.slots == 1
    best: CostEstimate | None = None
    least = inf
    for lane in lanes:
        frees = lane.free_at if one else lane.free(question.slots)
        # No `max` here: a call costs as much as the rest of the line.
        wait = frees - now if frees > now else 0.0
        fresh = least_fresh if lane.mask & touched else tokens
        read = fresh * (lane.per_read + lane.per_context * (tokens - fresh / 2))
        cost = wait + read * lane.read_price + answer * lane.token_price
        if cost >= least and lane.host is None:
            out((lane, wait, read, answer * lane.per_token, cost))
            continue
        each = _exact(question, lane, wait)
        seen.exact.append(each)
        if each.cost < least:
            best, least = each, each.cost
    return best, seen


def _exact(question: RequestFeatures, lane: EngineModel, wait: float) -> CostEstimate:
    slot, cached, loss = pick(question, lane)
    answer = question.answer
    ahead = 0.0
    if wait == 0.0 and lane.read_until > question.now:
        ahead = lane.ahead(slot)
    fresh = question.tokens - cached
    if fresh < 1.0:
        fresh = 1.0
    pairs = fresh * (cached + fresh / 2)
    read = fresh * lane.per_read + lane.per_context * pairs
    if fresh < FEW:
        read += lane.few_start + lane.per_few * pairs
    loss *= lane.weights.loss * lane.read_price
    first = lane.learner.speed.overhead + wait + ahead
    risk = lane.risk * (1 + wait + ahead)
    cost = first + read * lane.read_price + answer * lane.token_price + loss + risk
    write = answer * lane.per_token
    return CostEstimate(
        lane=lane,
        slot=slot,
        cached=cached,
        tokens=question.tokens,
        wait=wait,
        ahead=ahead,
        read=read,
        write=write,
        loss=loss,
        cost=cost,
    )
