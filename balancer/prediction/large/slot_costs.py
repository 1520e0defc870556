"""Slot costs: what the slots of engines cost at least, in tokens to read. Pure.

A slot costs what is read again because its content is lost, and saves what it holds of
the prompt. Prompts that begin alike find the same slots, so this is kept for each such
beginning, until the engine changes or the chances that a content is missed do.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from balancer.prediction.engine_model import EngineModel
from balancer.prediction.prefix_cache import CachedPrefix
from balancer.prediction.returns.conversations import Chances
from balancer.prediction.returns.pauses import ENDS
from balancer.prediction.slot_match import RequestFeatures

Slots = tuple[float, float]
"""The cost of the best idle slot without a part of the prompt, and of the best with."""

NONE = 1e300
"""The cost of a slot that does not exist; unlike `inf`, 0 times it is 0."""


class SlotCosts:
    """The costs for prompts that share `depth` blocks, as far as they were needed."""

    def __init__(
        self, engines: Sequence[EngineModel], depth: int, size: int, counted: float
    ) -> None:
        self.found: list[Slots | None] = [None] * len(engines)
        self._engines = engines
        self._depth = depth
        self.size = size
        """Bytes of what is shared; 0 where the engines have counted its tokens."""
        self.counted = counted

    def of(self, number: int, features: RequestFeatures, held: int) -> Slots:
        """Return the costs on an engine; `held` are slots with a part of the prompt."""
        found = self.found[number]
        if found is None:
            engine = self._engines[number]
            found = self.found[number] = self._costs(engine, features, held)
        return found

    def _costs(
        self, engine: EngineModel, features: RequestFeatures, held: int
    ) -> Slots:
        held &= engine.mask
        if engine.served is not None and engine.served.cache != "slots":
            # What it keeps all its requests share, and a slot loses nothing.
            return 0.0, -self._depth_tokens(engine, features, held) if held else NONE
        if not engine.mask & features.cache_index.idle:
            return 0.0, NONE  # it says that it has a slot, and none is known
        contents, chances = features.cache_index.contents, features.chances
        worth, other, own = engine.weights.loss, NONE, NONE
        by_client = chances.by_client
        for place in engine.resting:
            content = contents[place]
            if content is None:
                other = 0.0
                continue
            client = content.client
            found = by_client.get(client) or chances.of(client)
            # The chance falls with time; what is kept has to hold until the end.
            chance = found[bisect_right(ENDS, chances.until - content.since)]
            if held and held >> place & 1:
                shared, lost = self._shared(content)
                cost = worth * chance * lost - shared * engine.trust
                own = cost if cost < own else own
            else:
                cost = worth * chance * content.tokens
                other = cost if cost < other else other
        return other, own

    def _depth_tokens(
        self, engine: EngineModel, features: RequestFeatures, held: int
    ) -> float:
        contents, most = features.cache_index.contents, 0.0
        for place in engine.places:
            content = contents[place]
            if content is not None and held >> place & 1:
                most = max(most, self._shared(content)[0])
        return most

    def _shared(self, content: CachedPrefix) -> tuple[float, float]:
        """Return how many tokens of the prompt it holds at most; the others, at least.

        They are lost with it, unless it is an earlier state of the same conversation.
        """
        tokens, shared = content.tokens, self.counted
        if len(content.prompt.blocks) <= self._depth:
            return tokens, 0.0
        if self.size:
            like = self.size * content.tokens_per_byte
            shared = like if like > shared else shared
        return shared, tokens - shared if tokens > shared else 0.0


class KeptSlotCosts:
    """The costs for the latest beginnings of prompts."""

    KEPT = 16

    def __init__(self, engines: Sequence[EngineModel]) -> None:
        self._engines = engines
        self._chances: Chances | None = None
        self._kept: dict[bytes, SlotCosts] = {}

    def changed(self, numbers: Sequence[int] | None) -> None:
        """Drop what was found for engines that have changed, or for all."""
        if numbers is None:
            self._kept.clear()
            return
        for each in self._kept.values():
            found = each.found
            for number in numbers:
                found[number] = None

    def of(self, features: RequestFeatures, before: int) -> SlotCosts:
        """Return those for a prompt, of which the levels `before` do not count."""
        if features.chances is not self._chances or len(self._kept) > self.KEPT:
            self._kept.clear()
        self._chances, depth, key = features.chances, 0, b""
        levels, prompt = features.levels[before:], features.prompt
        if levels:
            depth = levels[0][0]
            key = prompt.blocks[depth - 1]
        counts = [features.counted.get(each) for each, _ in levels]
        known = [each for each in counts if each is not None]
        size = prompt.ends[depth - 1] if len(known) < len(counts) else 0
        counted = max(known, default=0.0)
        found = self._kept.get(key)
        if found is None or found.size != size or found.counted < counted:
            found = SlotCosts(self._engines, depth, size, counted)
            self._kept[key] = found
        return found
