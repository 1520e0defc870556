"""Slot match: which slot holds most of the prompt of a request. Pure."""

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
from balancer.prediction.workload import Workload

MORE = 1.2
"""Some texts have more tokens a byte than the one at hand; bounds allow for that."""


class RequestFeatures(msgspec.Struct, kw_only=True):
    """A request as the engines' prices need it.

    `tokens` is the length of its prompt, `answer` that of its answer, as expected;
    `levels` are the slots that hold a part of it, `counted` how many tokens that is
    where somebody counted, `most` how many it may be, `touched` all of these slots.
    `hint` is the slot that its session last used.
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
    now: float
    workload: Workload
    holdings: PrefixCacheIndex

    def depth(self, bit: int) -> int:
        """Blocks of the prompt that a slot holds."""
        for depth, mask in self.levels:
            if mask & bit:
                return depth
        return 0


def asked(
    prompt: Prompt,
    workload: Workload,
    holdings: PrefixCacheIndex,
    now: float,
    *,
    slots: int = 1,
    budget: int | None = None,
    tokens: float | None = None,
    answer: float | None = None,
    hint: int = -1,
) -> RequestFeatures:
    """Find it out. `tokens` and `answer`: lengths where they are known."""
    levels = holdings.levels(prompt)
    touched = 1 << hint if hint >= 0 else 0
    for _, mask in levels:
        touched |= mask
    ratio = _tokens_per_byte(levels, workload, holdings)
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
        now=now,
        workload=workload,
        holdings=holdings,
    )


def _tokens_per_byte(
    levels: list[Level], workload: Workload, holdings: PrefixCacheIndex
) -> float:
    """That of the conversation where it is known, else the model's."""
    if levels:
        mask = levels[0][1]
        held = holdings.held[(mask & -mask).bit_length() - 1]
        if held is not None:
            return held.tokens_per_byte
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
"""A slot, tokens it spares the prompt, seconds it may cost to lose its content."""

NONE: Slot = (-1, 0.0, 0.0)

MOST = 8
"""Slots of one engine that are looked at closely for one request."""


def pick(question: RequestFeatures, lane: EngineModel) -> Slot:
    """The best idle slot where we may choose, else the one that llama.cpp will take."""
    idle = question.holdings.idle & lane.mask
    if not idle:
        return _next(question, lane)
    if lane.slots == 1:
        return (0, *_worth(question, lane, lane.places[0]))
    if lane.pins and not lane.foreign:
        return _best(question, lane, idle)
    return _llama(question, lane, idle)


def _next(question: RequestFeatures, lane: EngineModel) -> Slot:
    """All are busy: what comes free first will hold its prompt and its answer."""
    if lane.next_slot < 0:
        return NONE
    return (-1, *_worth(question, lane, lane.places[lane.next_slot]))


def _best(question: RequestFeatures, lane: EngineModel, idle: int) -> Slot:
    """Where reading what is missing and losing what is there cost least together."""
    dear, per_read = lane.weights.loss, lane.per_read
    best, least = NONE, inf
    for place in _sharing(question, idle) + _others(question, lane, idle):
        cached, loss = _worth(question, lane, place)
        cost = dear * loss - per_read * cached
        if cost < least:
            best, least = (lane.numbers[place], cached, loss), cost
    return best


def _sharing(question: RequestFeatures, idle: int) -> list[int]:
    """Places that hold a part of the prompt, or its session; the largest part first."""
    found: list[int] = []
    if question.hint >= 0 and idle & (1 << question.hint):
        found.append(question.hint)
        idle &= ~(1 << question.hint)
    for _, mask in question.levels:
        left = mask & idle
        # Of those that hold equally much, one that nobody will miss is the best.
        left = left & question.holdings.bare or left
        while left and len(found) < MOST:
            found.append((left & -left).bit_length() - 1)
            left &= left - 1
            if question.holdings.bare & (1 << found[-1]):
                break
    return found


def _others(question: RequestFeatures, lane: EngineModel, idle: int) -> list[int]:
    """Places that share nothing: one that nobody will miss, else the longest idle."""
    left = idle & ~question.touched
    bare = left & question.holdings.bare
    if bare:
        return [(bare & -bare).bit_length() - 1]
    if not left:
        return []
    found: list[int] = []
    for place in lane.resting:
        if left & (1 << place):
            found.append(place)
            if len(found) == MOST:
                break
    return found


def _llama(question: RequestFeatures, lane: EngineModel, idle: int) -> Slot:
    """The most similar slot, else the one that was used least recently."""
    for _, mask in question.levels:
        if left := mask & idle:
            place = (left & -left).bit_length() - 1
            held = question.holdings.held[place]
            # The host cache counts once the slot is chosen, not for choosing it.
            own = _shared(question, held, place) if held is not None else 0.0
            if _believed(question, lane, own) > SIMILARITY * question.tokens:
                return (lane.numbers[place], *_worth(question, lane, place))
    oldest = next(each for each in lane.resting if idle & (1 << each))
    return (lane.numbers[oldest], *_worth(question, lane, oldest))


def _worth(
    question: RequestFeatures, lane: EngineModel, place: int
) -> tuple[float, float]:
    """Tokens that a slot spares, and seconds that forgetting the rest may cost."""
    held = question.holdings.held[place]
    if lane.host is not None:
        return _worth_with_host(question, lane, lane.host, held, place), 0.0
    if held is None:
        return 0.0, 0.0
    chance = question.workload.chance_to_be_missed(question.now - held.since)
    if not question.touched & (1 << place):
        return 0.0, chance * held.tokens * lane.per_read
    shared = _shared(question, held, place)
    # When its own session goes on here, nobody else will come for what is lost.
    lost = held.tokens - shared if place != question.hint else 0.0
    loss = chance * lost * lane.per_read if lost > 0.0 else 0.0
    return _believed(question, lane, shared), loss


def _worth_with_host(
    question: RequestFeatures,
    lane: EngineModel,
    host: HostCache,
    held: CachedPrefix | None,
    place: int,
) -> float:
    """The same where what a slot loses is kept: nothing is lost."""
    shared = _shared(question, held, place) if held is not None else 0.0
    spared = host.spares(question.prompt, held, question.tokens)
    return _believed(question, lane, max(shared, spared))


def _believed(question: RequestFeatures, lane: EngineModel, spared: float) -> float:
    """At least one token is always read."""
    return max(0.0, min(spared * lane.trust, question.tokens - 1))


def _shared(question: RequestFeatures, held: CachedPrefix, place: int) -> float:
    """Tokens of the prompt that a slot holds."""
    depth = question.depth(1 << place)
    shared = 0.0
    if depth:
        counted = question.counted.get(depth)
        if counted is None or depth >= len(held.prompt.blocks):
            shared = held.shared(depth, question.prompt)
        else:
            shared = counted
    if place == question.hint:
        # The session goes on here, though its text does not show it.
        shared = max(shared, min(held.tokens, question.tokens) / 2)
    return shared
