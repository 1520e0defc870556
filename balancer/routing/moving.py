"""Moves: when a request should leave its engine for a faster one. Pure.

    saved = left here - (overhead + ahead + read + write there) - price

`left here` goes by what the engine has shown of this request; `read` is the prompt and
the text so far, less what the other engine has cached. `price` is what others lose by
it there: answers that pause, conversations that are forgotten. So the work that is
thrown away counts. A move must save GAIN of what is left, and LEAST_SECONDS: then no
error of a prediction sends requests to and fro.

Requests that wait go first: whenever a slot comes free they are assigned, and a move
gets only a slot that none of them wants, on an engine for which none of them waits.
"""

from __future__ import annotations

import msgspec

from balancer.fleet.engines import EngineCandidate
from balancer.prediction.cost import CostEstimate
from balancer.prediction.running import LIKELY_LEFT
from balancer.prediction.speed import SMALLEST_PREFILL
from balancer.routing.dispatcher import Assignment

GAIN = 0.4
"""The share of what is left that a move must save."""

LEAST_SECONDS = 2.0
"""Seconds that it must save."""

MOST_MOVES = 2
"""Times that one request may move."""

HICCUP_SECONDS = 0.5
"""A silence that means nothing: a packet was late, or a process paused."""

SURE_TEXTS = 8
"""After so many tokens of an answer, its own pace is better than a prediction."""


class Remaining(msgspec.Struct, frozen=True):
    """What is left of a request: seconds here, to the end of its answer, and tokens.

    `prompt` is what another engine would have to read, `answer` to write.
    """

    seconds: float
    prompt: float
    answer: float


class Move(msgspec.Struct, frozen=True):
    """Go on at `to`: seconds left at the old engine, and needed there."""

    left: float
    there: float
    to: EngineCandidate

    @property
    def why(self) -> str:
        """The reason, as the request log has it."""
        return f"{self.left:.1f} s left here, {self.there:.1f} s on {self.to.node}"


def pays(left: float, there: float, price: float = 0.0) -> bool:
    """Whether so many seconds there are worth leaving an engine; see above."""
    return left - there - price >= max(LEAST_SECONDS, GAIN * left)


def remaining(
    running: Assignment,
    now: float,
    *,
    read: int | None = None,
    read_seconds: float = 0.0,
    written: int = 0,
    quiet: float | None,
) -> Remaining:
    """Return what is left of a request.

    `read`: tokens of its prompt that were read, None where the engine has not begun;
    it took `read_seconds`, other prompts included.
    `written`: tokens of its answer so far. `quiet`: seconds since its engine last
    showed work, None where it may work unseen.
    """
    answer = _answer_left(running, written)
    if running.first is not None:
        seconds = answer * _token_seconds(running, now, written)
        return Remaining(seconds, running.tokens + written, answer)
    engine, writing = running.engine, running.engine.load.writing
    write = answer * engine.speed.token_seconds(writing + 1) * engine.scale
    if quiet is None:
        elapsed = now - running.started
        whole = engine.speed.overhead + _reading(running, running.cached) + write
        return Remaining(max(0.0, whole - elapsed), running.tokens, answer)
    slower = _slower(running, quiet)
    reading = _reading(running, running.cached if read is None else read)
    if read is not None and read - running.cached >= SMALLEST_PREFILL:
        pace = read_seconds / (read - running.cached)
        reading = max(reading, pace * (running.tokens - read))
    ahead = engine.load.unread(running.slot) * engine.scale
    first = (ahead + reading) * slower
    if slower == 1.0:
        first = max(0.0, first - quiet)
    if not engine.learner.writing.weight:
        write *= slower
    return Remaining(first + write, running.tokens, answer)


def _answer_left(running: Assignment, written: int) -> float:
    """Tokens of its answer to come; see `RunningRequest.left`."""
    left = max(running.answer - written, LIKELY_LEFT * running.answer)
    budget = running.request.routing.budget
    return left if budget is None else max(0.0, min(left, budget - written))


def _token_seconds(running: Assignment, now: float, written: int) -> float:
    if written >= SURE_TEXTS and running.first is not None:
        return (now - running.first) / written
    engine = running.engine
    return engine.speed.token_seconds(engine.load.writing) * engine.scale


def _reading(running: Assignment, done: float) -> float:
    """Seconds to read the rest of its prompt, at the speed that is known by now."""
    left = max(0.0, running.tokens - done)
    return running.engine.speed.prefill_seconds(left, done) * running.engine.scale


def _slower(running: Assignment, quiet: float) -> float:
    """By which factor its engine is slower than known, as a missing batch shows."""
    engine = running.engine
    tokens = min(float(engine.batch), running.tokens)
    batch = engine.speed.prefill_seconds(tokens, 0) * engine.scale
    late = quiet - HICCUP_SECONDS - engine.speed.overhead
    return max(1.0, late / max(batch, HICCUP_SECONDS))


def price(there: CostEstimate) -> float:
    """Seconds that others lose where an engine takes one more request."""
    engine = there.engine
    lost = engine.weights.loss * engine.read_price * there.loss
    return there.read * (engine.read_price - 1) + lost
