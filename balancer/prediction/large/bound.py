"""Lower bound: what a request costs at least on an engine with an idle slot. Pure.

It counts what the cost counts: overhead, the batch that runs, reading, writing, the
risk, a late first token, and what the cheapest idle slot loses. It takes a fifth of an
exact look.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from balancer.prediction.engine_model import EngineModel
from balancer.prediction.large.slot_costs import NONE, SlotCosts
from balancer.prediction.slot_match import RequestFeatures
from balancer.prediction.speed import FEW

Prices = tuple[float, float, float, float]
"""What a token to read and one to write cost at least, and each earlier token for one
to read; when a slot is free."""


class LowerBound:
    """The lower bounds of one request.

    `held` are slots that hold a part of the prompt, at most `most` tokens of it.
    """

    def __init__(
        self, features: RequestFeatures, costs: SlotCosts, held: int, most: float
    ) -> None:
        self._features = features
        self._costs = costs
        self._held = held
        tokens = features.tokens
        self.fresh = max(1.0, tokens - most) if held else tokens
        """So many tokens are to be read at least."""
        self._pairs = tokens * (tokens / 2)
        self._few_pairs = self.fresh * (tokens - self.fresh / 2)

    def by_price(
        self, numbers: Iterable[int], prices: Sequence[Prices], most: float
    ) -> list[tuple[float, int]]:
        """Return what reading, writing and the slot cost at least, up to `most`.

        This is the innermost loop of a decision: hence no calls, and no `min`.
        """
        features, kept, pairs = self._features, self._costs.found, self._pairs
        tokens, answer, few_pairs = features.tokens, features.answer, self._few_pairs
        found: list[tuple[float, int]] = []
        for number in numbers:
            slots = kept[number]
            if slots is None:
                slots = self._costs.of(number, features, self._held)
            other, own = slots
            read, write, context, _ = prices[number]
            cost = (tokens + other) * read + context * pairs
            if own < NONE:
                fresh = tokens + own
                least = (fresh if fresh > 1.0 else 1.0) * read + context * few_pairs
                cost = least if least < cost else cost
            cost += answer * write
            if cost <= most:
                found.append((cost, number))
        return found

    def more(self, engine: EngineModel) -> float:
        """Return what comes to that at least.

        That is overhead, the running batch, a short prompt, and a late first token.
        """
        features, ahead, fresh = self._features, 0.0, self.fresh
        if features.slots == 1 and engine.load.requests:
            ahead = _ahead(engine, features.now)
        few = 0.0
        if features.tokens < FEW:
            few = engine.few_start + engine.per_few * self._few_pairs
        risk = engine.risk * (1 + ahead)
        begin = engine.learner.speed.overhead + ahead
        first = begin + fresh * engine.per_read + engine.per_context * self._few_pairs
        late = features.late * (first + few) * (first + few)
        return begin + few * engine.read_price + risk + late


def _ahead(engine: EngineModel, now: float) -> float:
    """Seconds that what runs delays a prompt at least: see `EngineModel.ahead`."""
    every = engine.read_until - now
    if every <= 0.0:
        return engine.half_step
    load = engine.load
    left = engine.batch * engine.per_read - now + load.batch_at
    ahead = every if left > every else left if left > 0.0 else 0.0
    if load.reader is not None and engine.resting:
        slot = min(engine.numbers[place] for place in engine.resting)
        if load.reader.slot < slot:
            one = len(load.reading) == 1
            ahead = max(ahead, every if one else load.unread(slot) * engine.scale)
    return engine.learner.contention * ahead
