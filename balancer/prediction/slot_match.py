"""Slot match: which slot of an engine a request should use. Pure."""

from __future__ import annotations

from math import inf

import msgspec

from balancer.dialects.prompt import Prompt, reach
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.prefix_cache import (
    SIMILARITY,
    CachedPrefix,
    HostCache,
    Level,
    PrefixCacheIndex,
)
from balancer.prediction.returns.conversations import Chances
from balancer.prediction.workload import Workload
from edgeserve.served import Served

MORE = 1.2
"""Some texts have more tokens per byte than this one; upper bounds allow for that."""


class RequestFeatures(msgspec.Struct, kw_only=True):
    """What the cost of a request depends on, on every engine.

    `tokens` and `answer` are the expected lengths of prompt and answer. `levels` are
    the slots that hold a part of the prompt; `counted` is how many tokens that part has
    where an engine counted, `most` how many it may have; `touched` are all of these
    slots. `hint` is the place that its session last used. `late` is what the
    square of its first token's seconds costs, see `weights`.
    """

    prompt: Prompt
    tokens: float
    answer: float
    slots: int
    levels: list[Level]
    counted: dict[int, float]
    most: list[float]
    touched: int
    hint: int
    late: float
    now: float
    workload: Workload
    chances: Chances
    cache_index: PrefixCacheIndex

    def depth(self, bit: int) -> int:
        """Return how many blocks of the prompt a slot holds."""
        for depth, mask in self.levels:
            if mask & bit:
                return depth
        return 0


def features_of(
    prompt: Prompt,
    workload: Workload,
    cache_index: PrefixCacheIndex,
    now: float,
    *,
    slots: int = 1,
    budget: int | None = None,
    tokens: float | None = None,
    answer: float | None = None,
    hint: int = -1,
    late: float = 0.0,
) -> RequestFeatures:
    """Compute the features; `tokens` and `answer` are exact lengths, if known."""
    levels = cache_index.levels(prompt)
    touched = 1 << hint if hint >= 0 else 0
    for _, mask in levels:
        touched |= mask
    ratio = _tokens_per_byte(levels, workload, cache_index)
    return RequestFeatures(
        prompt=prompt,
        tokens=tokens or max(2.0, workload.lengths.of(prompt, ratio)),
        answer=answer or workload.answer_tokens(prompt.head, budget),
        slots=slots,
        levels=levels,
        counted=_counted(prompt, levels, workload),
        most=[MORE * ratio * reach(prompt, depth) for depth, _ in levels],
        touched=touched,
        hint=hint,
        late=late,
        now=now,
        workload=workload,
        chances=workload.chances(now),
        cache_index=cache_index,
    )


def _tokens_per_byte(
    levels: list[Level], workload: Workload, cache_index: PrefixCacheIndex
) -> float:
    """Return the ratio of the conversation where it is known, else the model's."""
    if levels:
        mask = levels[0][1]
        content = cache_index.contents[(mask & -mask).bit_length() - 1]
        if content is not None:
            return content.tokens_per_byte
    return workload.tokens_per_byte


def _counted(
    prompt: Prompt, levels: list[Level], workload: Workload
) -> dict[int, float]:
    found = dict[int, float]()
    for depth, _ in levels:
        tokens = workload.lengths.at(prompt.blocks[depth - 1])
        if tokens is not None:
            found[depth] = tokens
    return found


Slot = tuple[int, float, float]
"""A slot, the tokens that it saves, the seconds that losing its content may cost."""

NO_SLOT: Slot = (-1, 0.0, 0.0)

MOST = 8
"""Slots of one engine that are examined for one request."""


def pick(features: RequestFeatures, engine: EngineModel) -> Slot:
    """Return the best idle slot, or where the engine chooses, the slot it will take."""
    idle = features.cache_index.idle & engine.mask
    if not idle:
        return _next(features, engine)
    if len(engine.places) == 1:
        return (0, *_gain(features, engine, engine.places[0]))
    if engine.served is not None and engine.served.cache != "slots":
        return _of_server(features, engine, engine.served, idle)
    if engine.pins and not engine.foreign:
        return _best(features, engine, idle)
    return _llama(features, engine, idle)


def _of_server(
    features: RequestFeatures, engine: EngineModel, served: Served, idle: int
) -> Slot:
    """Return any idle slot, and what a cache holds that all its requests share.

    What is read for one that runs can be used by others; a text loses little of what
    others have, as the cache holds more than the slots.
    """
    slot, cached, _ = _best(features, engine, idle)
    for _, mask in features.levels[:1]:
        if mask := mask & engine.mask:
            place = (mask & -mask).bit_length() - 1
            cached = max(cached, _gain(features, engine, place)[0])
    return slot, cached // served.block * served.block, 0.0


def _next(features: RequestFeatures, engine: EngineModel) -> Slot:
    """All are busy: the slot that comes free first will hold its prompt and answer."""
    if engine.next_slot < 0:
        return NO_SLOT
    return (-1, *_gain(features, engine, engine.places[engine.next_slot]))


def _best(features: RequestFeatures, engine: EngineModel, idle: int) -> Slot:
    """Find where reading the rest and losing the old content cost least together."""
    loss_weight, per_read = engine.weights.loss, engine.per_read
    best, least = NO_SLOT, inf
    for place in _sharing(features, idle) + _others(features, engine, idle):
        cached, loss = _gain(features, engine, place)
        cost = loss_weight * loss - per_read * cached
        if cost < least:
            best, least = (engine.numbers[place], cached, loss), cost
    return best


def _sharing(features: RequestFeatures, idle: int) -> list[int]:
    """List places with a part of the prompt, or its session; largest part first."""
    found: list[int] = []
    if features.hint >= 0 and idle & (1 << features.hint):
        found.append(features.hint)
        idle &= ~(1 << features.hint)
    for _, mask in features.levels:
        left = mask & idle
        # Of those that hold equally much, one with no further use is best.
        left = left & features.cache_index.disposable or left
        while left and len(found) < MOST:
            found.append((left & -left).bit_length() - 1)
            left &= left - 1
            if features.cache_index.disposable & (1 << found[-1]):
                break
    return found


def _others(features: RequestFeatures, engine: EngineModel, idle: int) -> list[int]:
    """List places that share nothing: one of no further use, else the longest idle."""
    left = idle & ~features.touched
    disposable = left & features.cache_index.disposable
    if disposable:
        return [(disposable & -disposable).bit_length() - 1]
    if not left:
        return []
    found: list[int] = []
    for place in engine.resting:
        if left & (1 << place):
            found.append(place)
            if len(found) == MOST:
                break
    return found


def _llama(features: RequestFeatures, engine: EngineModel, idle: int) -> Slot:
    """Choose as llama.cpp: the most similar slot, else the least recently used."""
    for _, mask in features.levels:
        if left := mask & idle:
            place = (left & -left).bit_length() - 1
            content = features.cache_index.contents[place]
            # The host cache counts once the slot is chosen, not for choosing it.
            own = _shared(features, content, place) if content is not None else 0.0
            if _expected(features, engine, own) > SIMILARITY * features.tokens:
                return (engine.numbers[place], *_gain(features, engine, place))
    oldest = next(each for each in engine.resting if idle & (1 << each))
    return (engine.numbers[oldest], *_gain(features, engine, oldest))


def _gain(
    features: RequestFeatures, engine: EngineModel, place: int
) -> tuple[float, float]:
    """Return the tokens that a slot saves, and the seconds that the loss may cost."""
    content = features.cache_index.contents[place]
    if engine.host is not None:
        return _gain_with_host(features, engine, engine.host, content, place), 0.0
    if content is None:
        return 0.0, 0.0
    paused = features.now - content.since
    chance = features.chances.to_be_missed(content.client, paused)
    if not features.touched & (1 << place):
        return 0.0, chance * content.tokens * engine.per_read
    shared = _shared(features, content, place)
    # When its own session goes on here, no other request needs what is lost.
    own = features.depth(1 << place) == len(content.prompt.blocks)
    lost = 0.0 if own or place == features.hint else content.tokens - shared
    loss = chance * lost * engine.per_read if lost > 0.0 else 0.0
    return _expected(features, engine, shared), loss


def _gain_with_host(
    features: RequestFeatures,
    engine: EngineModel,
    host: HostCache,
    content: CachedPrefix | None,
    place: int,
) -> float:
    """Return the tokens saved where the host cache keeps what a slot loses."""
    shared = _shared(features, content, place) if content is not None else 0.0
    spared = host.spares(features.prompt, content, features.tokens)
    return _expected(features, engine, max(shared, spared))


def _expected(features: RequestFeatures, engine: EngineModel, spared: float) -> float:
    """Correct for trust; at least one token is always read."""
    return max(0.0, min(spared * engine.trust, features.tokens - 1))


def _shared(features: RequestFeatures, content: CachedPrefix, place: int) -> float:
    """Return how many tokens of the prompt a slot holds."""
    depth = features.depth(1 << place)
    shared = 0.0
    if depth:
        counted = features.counted.get(depth)
        if counted is None or depth >= len(content.prompt.blocks):
            shared = content.shared(depth, features.prompt)
        else:
            shared = counted
    if place == features.hint:
        # The session goes on here, though its text does not show it.
        shared = max(shared, min(content.tokens, features.tokens) / 2)
    return shared
