"""Which idle slot of an engine a prompt takes, and what that is worth. Pure."""

from __future__ import annotations

from typing import NamedTuple

from balancer.holdings import Held
from balancer.hostcache import SIMILARITY
from balancer.lane import Lane
from balancer.question import Question


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
        return _slot(question, lane, 0, question.depth(lane.mask))
    if lane.pins and not lane.foreign:
        return _best(question, lane, idle)
    return _llama(question, lane, idle)


def _next(question: Question, lane: Lane) -> Slot:
    """All are busy: what comes free first will hold its prompt and its answer."""
    if lane.next_slot < 0:
        return NONE
    depth = question.depth(1 << lane.places[lane.next_slot])
    return _slot(question, lane, lane.next_slot, depth)._replace(number=-1)


def _best(question: Question, lane: Lane, idle: int) -> Slot:
    """Where reading what is missing and losing what is there cost least together."""
    best, least = NONE, float("inf")
    for number, place in enumerate(lane.places):
        bit = 1 << place
        if not idle & bit:
            continue
        slot = _slot(question, lane, number, question.depth(bit))
        cost = lane.weights.loss * slot.loss - lane.per_read * slot.cached
        if cost < least:
            best, least = slot, cost
    return best


def _llama(question: Question, lane: Lane, idle: int) -> Slot:
    """The most similar slot, else the one that was used least recently."""
    for depth, mask in question.levels:
        for number, place in enumerate(lane.places):
            if mask & idle & (1 << place):
                slot = _slot(question, lane, number, depth)
                if slot.cached > SIMILARITY * question.tokens:
                    return slot
                break
    held = question.holdings.held
    oldest = min(
        (i for i, place in enumerate(lane.places) if idle & (1 << place)),
        key=lambda i: _used(held[lane.places[i]]),
    )
    return _slot(question, lane, oldest, question.depth(1 << lane.places[oldest]))


def _used(held: Held | None) -> float:
    return -1.0 if held is None else held.used


def _slot(question: Question, lane: Lane, number: int, depth: int) -> Slot:
    place = lane.places[number]
    held = question.holdings.held[place]
    shared = _shared(question, held, place, depth) if held is not None else 0.0
    spared = shared
    if lane.host is not None:
        spared = max(shared, lane.host.spares(question.prompt, held, question.tokens))
    cached = max(0.0, min(spared * lane.trust, question.tokens - 1))
    if held is None or lane.host is not None:
        # What a slot loses, the host cache keeps.
        return Slot(number, cached, 0.0)
    if place == question.hint:
        # The session itself goes on here: nobody else will come for it.
        return Slot(number, cached, 0.0)
    chance = question.workload.chance_to_be_missed(question.now - held.since)
    lost = max(0.0, held.tokens - shared)
    return Slot(number, cached, chance * lost * lane.per_read)


def _shared(question: Question, held: Held, place: int, depth: int) -> float:
    """Tokens of the prompt that a slot holds."""
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
