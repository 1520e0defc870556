"""What a request costs on an engine, in seconds and in parts. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from balancer.holdings import Held, Level
from balancer.lane import Lane
from balancer.prefix import Prompt
from balancer.workload import Workload

SIMILARITY = 0.10
"""The share of a prompt that a slot must hold for llama.cpp to prefer it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What a second counts for, by what it is spent on.

    A second before the first token counts 1.
    """

    write: float = 0.3
    crowd: float = 0.3
    others: float = 0.3
    loss: float = 1.0
    queue: float = 0.0


WEIGHTS = Weights()


class Parts(msgspec.Struct, frozen=True):
    """One engine's predicted times for one request, in seconds.

    `wait` for a slot, `ahead` for other prompts, `read` the prompt, `write` the answer;
    `crowd` is what is charged for taking room on a busy engine, `others` for slowing
    those who are there, `loss` for what the slot forgets, `risk` for trying it at all.
    """

    lane: Lane
    slot: int
    cached: float
    tokens: float
    wait: float
    ahead: float
    read: float
    write: float
    crowd: float
    others: float
    loss: float
    risk: float
    cost: float

    @property
    def first(self) -> float:
        """Seconds from now to the first token."""
        return self.lane.speed.overhead + self.wait + self.ahead + self.read


class Question(msgspec.Struct):
    """A request with what was found out about it once, for all engines."""

    prompt: Prompt
    levels: list[Level]
    tokens: float
    answer: float
    now: float
    workload: Workload
    held: list[Held | None]
    idle: int
    weights: Weights
    target: Lane | None = None


def parts(question: Question, lane: Lane) -> Parts:
    """Price one engine."""
    now, speed = question.now, lane.speed
    wait = max(0.0, lane.frees[0] - now)
    slot, cached, loss = _slot(question, lane)
    tokens = question.tokens
    read = speed.prefill_seconds(max(1.0, tokens - cached), cached) * lane.scale
    running = len(lane.jobs)
    write = (
        question.answer * speed.token_seconds(min(running + 1, lane.slots)) * lane.scale
    )
    ahead = max(0.0, lane.now + lane.backlog - now - wait)
    load = min(lane.load, 0.95)
    weights = question.weights
    behind = lane.queued - (question.target is lane)
    crowd = (
        (weights.crowd * load / (1 - load) + weights.queue * behind)
        * (read + write)
        / lane.slots
    )
    others = weights.others * min(running, lane.slots - 1) * read
    risk = lane.risk * (wait + ahead + read + 1)
    loss = weights.loss * loss
    cost = (
        speed.overhead + wait + ahead + read
        + weights.write * write
        + crowd + others + loss + risk
    )  # fmt: skip
    return Parts(
        lane, slot, cached, tokens, wait, ahead, read, write, crowd, others, loss, risk,
        cost,
    )  # fmt: skip


def _slot(question: Question, lane: Lane) -> tuple[int, float, float]:
    """The idle slot to take, the tokens it spares, the seconds it costs to lose it."""
    idle = question.idle & lane.mask
    if not idle:
        return -1, 0.0, 0.0
    if not lane.pins:
        return _llama_slot(question, lane, idle)
    best: tuple[int, float, float] | None = None
    best_cost = 0.0
    seen = 0
    for depth, mask in (*question.levels, (0, idle)):
        for index, place in enumerate(lane.places):
            bit = 1 << place
            if not (mask & idle & bit) or seen & bit:
                continue
            seen |= bit
            cached, loss = _value(question, lane, place, depth)
            cost = loss - lane.speed.prefill * cached
            if best is None or cost < best_cost:
                best, best_cost = (index, cached, loss), cost
    assert best is not None  # noqa: S101 - an idle bit was set
    return best


def _llama_slot(question: Question, lane: Lane, idle: int) -> tuple[int, float, float]:
    """The slot that llama.cpp itself will take: the most similar, else the oldest."""
    for depth, mask in question.levels:
        if not mask & idle:
            continue
        for index, place in enumerate(lane.places):
            if mask & idle & (1 << place):
                cached, loss = _value(question, lane, place, depth)
                if cached > SIMILARITY * question.tokens:
                    return index, cached, loss
                break
    index = min(
        (i for i, place in enumerate(lane.places) if idle & (1 << place)),
        key=lambda i: _since(question.held[lane.places[i]]),
    )
    return (index, *_value(question, lane, lane.places[index], 0))


def _since(held: Held | None) -> float:
    return -1.0 if held is None else held.since


def _value(
    question: Question, lane: Lane, place: int, depth: int
) -> tuple[float, float]:
    """Tokens that a slot spares the prompt, and seconds that forgetting it may cost."""
    held = question.held[place]
    if held is None:
        return 0.0, 0.0
    blocks = len(question.prompt.blocks)
    shared = held.shared(depth, blocks) if depth else 0.0
    cached = min(shared * lane.trust, question.tokens - 1)
    lost = held.tokens - shared
    chance = question.workload.returns.chance(question.now - held.since)
    return cached, chance * lost * lane.speed.prefill * lane.scale
