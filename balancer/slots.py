"""Which idle slot of an engine a prompt takes, and what that is worth. Pure."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from balancer.holdings import Held, Holdings, Level
from balancer.lane import Lane
from balancer.prefix import Prompt
from balancer.workload import Workload

SIMILARITY = 0.10
"""`--slot-prompt-similarity`: what a slot must hold for llama.cpp to prefer it."""


class Question(msgspec.Struct):
    """A request with what was found out about it once, for all engines.

    `tokens` is the length of its prompt, `answer` that of its answer, as expected;
    `levels` are the slots that hold a part of it, `most` how many tokens that may be at
    each level, `touched` all of these slots. `hint` is a slot that a session last used,
    where the client names one.
    """

    prompt: Prompt
    levels: list[Level]
    most: list[float]
    touched: int
    tokens: float
    answer: float
    now: float
    workload: Workload
    holdings: Holdings
    hint: int = -1
    slots: int = 1


class Slot(NamedTuple):
    """A slot, tokens it spares the prompt, seconds it may cost to lose its content."""

    number: int
    cached: float
    loss: float


NONE = Slot(-1, 0.0, 0.0)


def pick(question: Question, lane: Lane) -> Slot:
    """The best idle slot where we may choose, else the one that llama.cpp will take."""
    idle = question.holdings.idle & lane.mask
    if not idle:
        return _next(question, lane)
    if lane.slots == 1:
        return _value(question, lane, 0, _depth(question, lane.mask))
    if lane.pins and not lane.foreign:
        return _best(question, lane, idle)
    return _llama(question, lane, idle)


def _next(question: Question, lane: Lane) -> Slot:
    """All are busy: what comes free first will hold its prompt and its answer."""
    if lane.next_slot < 0:
        return NONE
    depth = _depth(question, 1 << lane.places[lane.next_slot])
    return _value(question, lane, lane.next_slot, depth)._replace(number=-1)


def _depth(question: Question, bit: int) -> int:
    for depth, mask in question.levels:
        if mask & bit:
            return depth
    return 0


def _best(question: Question, lane: Lane, idle: int) -> Slot:
    """Where reading what is missing and losing what is there cost least together."""
    best, least = NONE, float("inf")
    per_token = lane.speed.prefill * lane.scale
    for index, place in enumerate(lane.places):
        bit = 1 << place
        if not idle & bit:
            continue
        slot = _value(question, lane, index, _depth(question, bit))
        cost = slot.loss - per_token * slot.cached
        if cost < least:
            best, least = slot, cost
    return best


def _llama(question: Question, lane: Lane, idle: int) -> Slot:
    """The most similar slot, else the one that was used least recently."""
    for depth, mask in question.levels:
        for index, place in enumerate(lane.places):
            if mask & idle & (1 << place):
                slot = _value(question, lane, index, depth)
                if slot.cached > SIMILARITY * question.tokens:
                    return slot
                break
    held = question.holdings.held
    oldest = min(
        (i for i, place in enumerate(lane.places) if idle & (1 << place)),
        key=lambda i: _used(held[lane.places[i]]),
    )
    return _value(question, lane, oldest, _depth(question, 1 << lane.places[oldest]))


def _used(held: Held | None) -> float:
    return -1.0 if held is None else held.used


def _value(question: Question, lane: Lane, index: int, depth: int) -> Slot:
    place = lane.places[index]
    held = question.holdings.held[place]
    shared = 0.0
    if held is not None and depth:
        shared = held.shared(depth, len(question.prompt.blocks))
    if held is not None and place == question.hint:
        shared = max(shared, min(held.tokens, question.tokens) / 2)
    spared = shared
    if lane.host is not None:
        spared = max(shared, lane.host.spares(question.prompt, held))
    cached = max(0.0, min(spared * lane.trust, question.tokens - 1))
    if held is None or lane.host is not None:
        # What a slot loses, the host cache keeps.
        return Slot(index, cached, 0.0)
    chance = question.workload.chance_to_be_missed(question.now - held.since)
    lost = max(0.0, held.tokens - shared)
    return Slot(index, cached, chance * lost * lane.speed.prefill * lane.scale)
