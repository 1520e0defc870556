"""Attempt tracking: follow an assigned request, and learn from what happens. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import structs

from balancer.dialects.timings import Timings
from balancer.prediction.servers.width import is_late
from balancer.prediction.speed import SMALLEST_PREFILL, Sample
from balancer.prediction.states.moves import CacheMove
from balancer.routing.decision import Send, Verdicts
from balancer.routing.dispatcher import Assignment, Dispatcher
from balancer.routing.eligibility import Eligible, Explanation

Clock = Callable[[], float]

OVERHEAD_GAIN = 0.2
MOST_OVERHEAD = 1.0
"""Seconds."""


class AttemptTracker(Send, eq=False, kw_only=True):
    """One attempt that `dispatcher` has assigned; it learns from what happens.

    `cached`, `tokens` and `first`: what was found of the prompt, and the seconds to the
    first token. `read`: tokens of the prompt that were read, `read_seconds` after it
    began. `whole`: the answer is complete, with these `timings`. `moved` is called when
    a prediction has become more exact. `cache_move` brought what it reuses;
    `prepared` are the seconds before it was sent.
    """

    dispatcher: Dispatcher
    assignment: Assignment
    eligible: Eligible
    clock: Clock
    moved: Callable[[], None]
    cached: int | None = None
    tokens: int | None = None
    first: float | None = None
    read: int | None = None
    read_seconds: float = 0.0
    whole: bool = False
    timings: Timings | None = None
    cache_move: CacheMove | None = None
    prepared: float = 0.0
    _reads: float = 0.0
    _over: bool = False
    _timed: bool = False

    @property
    def verdicts(self) -> Verdicts:
        """Every candidate as the decision saw it, compared when it is read."""
        chosen, considered = self.assignment.estimate, self.assignment.considered
        return Explanation(self.eligible, considered, chosen)

    @property
    def engine_slots(self) -> tuple[int, ...]:
        """The numbers of its slots."""
        return (self.assignment.slot, *self.assignment.others)

    @property
    def model(self) -> str:
        """The model that answers."""
        return self.assignment.engine.model

    def progress(self, total: int, cached: int, processed: int) -> None:
        """Correct the prediction; the first call says what was found cached."""
        if self._over or self.assignment.engine.gone:
            return
        now = self.clock()
        if self.tokens is None:
            self._began(now, total, cached)
            self._reads = now
        elif not self.assignment.engine.learner.calibrated:
            self._learn_early(processed, now)
        self.read, self.read_seconds = processed, now - self._reads
        self.assignment.engine.progressed(self.assignment, now, processed)
        self.moved()

    def _learn_early(self, processed: int, now: float) -> None:
        """Learn from a first batch the speed of an engine that was never measured."""
        engine, cached = self.assignment.engine, self.cached or 0
        alone = all(other is self.assignment for other in engine.load.reading.values())
        read, spent = processed - cached, now - self._reads
        if alone and read >= SMALLEST_PREFILL:
            ms = 1000 * spent / engine.scale
            engine.learner.learn(
                Sample(
                    cached=cached,
                    prompt=read,
                    prompt_ms=ms,
                    predicted=0,
                    predicted_ms=0.0,
                )
            )

    def wrote(self) -> None:
        """Note that the prompt is read."""
        if self._over or self.first is not None:
            return
        now = self.clock()
        self.first = now - self.assignment.started
        if not self.assignment.engine.gone:
            self.assignment.engine.wrote(self.assignment, now)
            self.moved()

    def answered(self, timings: Timings | None) -> None:
        """Keep what is learned when the slot is given back."""
        self._timed = timings is not None and timings.predicted_ms > 0
        self.whole, self.timings = True, timings and self._completed(timings)
        if timings is not None and self._timed and self.first is None:
            # It came in one piece: the first token was written long before the last.
            spent = self.clock() - self.assignment.started
            self.first = max(0.0, spent - timings.predicted_ms / 1000)

    def _completed(self, timings: Timings) -> Timings:
        """Replace what the engine did not tell by what was measured or expected."""
        if self._timed or self.first is None:
            return timings
        if not timings.tells_cached:
            prompt = timings.cached + timings.prompt
            cached = min(int(self.assignment.cached), max(prompt - 1, 0))
            timings = structs.replace(timings, cached=cached, prompt=prompt - cached)
        reading = max(0.0, self.first - self.assignment.engine.speed.overhead)
        writing = self.clock() - self.assignment.started - self.first
        return structs.replace(
            timings, prompt_ms=1000 * reading, predicted_ms=1000 * writing
        )

    def over(self) -> None:
        """Finish: the slot is given back."""
        if self._over:
            return
        self._over = True
        if not self.assignment.engine.gone:
            self._end(self.clock())

    def _end(self, now: float) -> None:
        assignment, engine, timings = (
            self.assignment,
            self.assignment.engine,
            self.timings,
        )
        for slot in assignment.others:
            # The engine chose these slots itself, and their old content is gone.
            self.dispatcher.cache_index.forget(engine.places[slot])
        if not self.whole:
            engine.drop(assignment, now)
            return
        if timings is None or assignment.request.slots > 1:
            engine.end(assignment, now)
            return
        counted = self.tokens is not None
        if not counted:
            self.tokens = max(1, timings.cached + timings.prompt)
            self.cached = timings.cached
        self._learn_overhead(timings)
        if not self._timed and self.first is not None:
            self._from_outside(timings, self.first)
        self.dispatcher.ended(assignment, now, timings, counted=counted)

    def _learn_overhead(self, timings: Timings) -> None:
        """Learn the overhead of a first token: network, chat template, slot.

        It is what the prompt's own time, shared or not, does not explain. A
        request that met answers waited for half of a step, on average; one that met a
        prompt waited for a batch, beside which the overhead is too small to be seen.
        """
        engine, guess = self.assignment.engine, self.assignment.engine.learner.guess
        met = self.assignment.readers + engine.foreign
        if self.first is None or not self._timed or met:
            return
        waited = timings.prompt_ms / 1000
        waited += engine.speed.half_step(self.assignment.writers) * engine.scale
        first = self.first - self.prepared
        measured = min(max(first - waited, 0.0), MOST_OVERHEAD)
        gain = max(OVERHEAD_GAIN, 1 / (engine.learner.samples + 1))
        moved = guess.overhead + gain * (measured - guess.overhead)
        engine.learner.guess = structs.replace(guess, overhead=moved)

    def _from_outside(self, timings: Timings, first: float) -> None:
        """Learn the width of a server, and what the first token's time can tell."""
        assignment, engine = self.assignment, self.assignment.engine
        assignment.outside, assignment.foreign = True, engine.foreign
        speed, beside = engine.speed, assignment.readers + assignment.writers
        if not engine.learner.calibrated:
            return
        # In the worst case all prompts that it met were read before its own.
        read = speed.prefill_seconds(timings.prompt, timings.cached)
        expected = speed.overhead + read * (1 + assignment.readers)
        expected += speed.half_step(assignment.writers + engine.foreign)
        served = max(assignment.writers, assignment.served) + engine.foreign
        at_once = 1 + beside + engine.foreign
        late = at_once > 1 and is_late(first, expected * engine.scale)
        assignment.queued = late and assignment.ends > 0 and served < at_once
        if engine.width is None:
            return
        if assignment.queued:
            engine.width.queued(served)
        elif not late:
            tokens, seconds = timings.predicted, self.clock() - assignment.started
            engine.width.on_time(at_once, assignment.ends, tokens, seconds)

    def _began(self, now: float, total: int, cached: int) -> None:
        self.tokens, self.cached = max(1, total), max(0, min(cached, total))
        self.dispatcher.began(self.assignment, now, self.tokens, self.cached)

    def shown(self) -> dict[str, Any]:
        """Render what was predicted and what happened; seconds and tokens."""
        estimate, timings = self.assignment.estimate, self.timings
        tokens, cached, rate = self.tokens, self.cached, None
        if tokens is None and timings is not None:  # its engine has been replaced
            tokens, cached = timings.cached + timings.prompt, timings.cached
        if timings is not None and timings.predicted > 1 and timings.predicted_ms > 0:
            rate = 1000 * (timings.predicted - 1) / timings.predicted_ms
        writing = estimate.write / max(self.assignment.answer, 1.0)
        return {
            "predicted": {
                "first_token_seconds": round(estimate.first, 4),
                "read_seconds": round(estimate.read, 4),
                "prompt_tokens": round(estimate.tokens),
                "cached_tokens": round(estimate.cached),
                "tokens_per_second": round(1 / writing, 2) if writing else None,
            },
            "actual": {
                "first_token_seconds": self.first and round(self.first, 4),
                "read_seconds": timings and round(timings.prompt_ms / 1000, 4),
                "prompt_tokens": tokens,
                "cached_tokens": cached,
                "tokens_per_second": rate and round(rate, 2),
                "answer_tokens": timings and timings.predicted,
            },
            "cache_move": self.cache_move and self.cache_move.shown(),
        }
