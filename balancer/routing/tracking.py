"""Attempt tracking: follow an assigned request, and learn from what happens. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from msgspec import structs

from balancer.dialects.timings import Timings
from balancer.prediction.speed import SMALLEST_PREFILL, Sample
from balancer.routing.decision import Send, Verdicts
from balancer.routing.dispatcher import Assignment, Dispatcher
from balancer.routing.eligibility import Eligible, Explanation

Clock = Callable[[], float]

OVERHEAD_GAIN = 0.2
MOST_OVERHEAD = 1.0
"""Seconds."""


class AttemptTracker(Send):
    """One attempt that `Dispatcher` has assigned; it learns from what happens."""

    __slots__ = (
        "_assignment",
        "_clock",
        "_dispatcher",
        "_eligible",
        "_moved",
        "_over",
        "_reads",
        "_timed",
        "cached",
        "first",
        "timings",
        "tokens",
        "whole",
    )

    def __init__(
        self,
        dispatcher: Dispatcher,
        assignment: Assignment,
        eligible: Eligible,
        clock: Clock,
        moved: Callable[[], None],
    ) -> None:
        engine, request = assignment.engine, assignment.request
        super().__init__(
            eligible.candidate_by_name[engine.name],
            request.need.slots,
            slot=assignment.slot if engine.pins else None,
            first_seconds=assignment.estimate.first,
        )
        self.cached: int | None = None
        self.tokens: int | None = None
        self.first: float | None = None
        self.whole = False
        self._dispatcher, self._assignment, self._clock = dispatcher, assignment, clock
        self._eligible, self._moved = eligible, moved
        self._reads = assignment.started
        self.timings: Timings | None = None
        self._over = self._timed = False

    @property
    def verdicts(self) -> Verdicts:
        """Every candidate as the decision saw it, compared when it is read."""
        chosen, considered = self._assignment.estimate, self._assignment.considered
        return Explanation(self._eligible, considered, chosen)

    @property
    def engine_slots(self) -> tuple[int, ...]:
        """The numbers of its slots."""
        return (self._assignment.slot, *self._assignment.others)

    @property
    def model(self) -> str:
        """The model that answers."""
        return self._assignment.engine.model

    def progress(self, total: int, cached: int, processed: int) -> None:
        """Correct the prediction; the first call says what was found cached."""
        if self._over or self._assignment.engine.gone:
            return
        now = self._clock()
        if self.tokens is None:
            self._began(now, total, cached)
            self._reads = now
        elif not self._assignment.engine.learner.calibrated:
            self._learn_early(processed, now)
        self._assignment.engine.progressed(self._assignment, now, processed)
        self._moved()

    def _learn_early(self, processed: int, now: float) -> None:
        """Learn from a first batch the speed of an engine that was never measured."""
        engine, cached = self._assignment.engine, self.cached or 0
        alone = all(other is self._assignment for other in engine.load.reading.values())
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
        now = self._clock()
        self.first = now - self._assignment.started
        if not self._assignment.engine.gone:
            self._assignment.engine.wrote(self._assignment, now)
            self._moved()

    def answered(self, timings: Timings | None) -> None:
        """Keep what is learned when the slot is given back."""
        self._timed = timings is not None and timings.predicted_ms > 0
        self.whole, self.timings = True, timings and self._completed(timings)
        if timings is not None and self._timed and self.first is None:
            # It came in one piece: the first token was written long before the last.
            spent = self._clock() - self._assignment.started
            self.first = max(0.0, spent - timings.predicted_ms / 1000)

    def _completed(self, timings: Timings) -> Timings:
        """Replace missing times by those measured here."""
        if self._timed or self.first is None:
            return timings
        reading = max(0.0, self.first - self._assignment.engine.speed.overhead)
        writing = self._clock() - self._assignment.started - self.first
        return structs.replace(
            timings, prompt_ms=1000 * reading, predicted_ms=1000 * writing
        )

    def over(self) -> None:
        """Finish: the slot is given back."""
        if self._over:
            return
        self._over = True
        if not self._assignment.engine.gone:
            self._end(self._clock())

    def _end(self, now: float) -> None:
        assignment, engine, timings = (
            self._assignment,
            self._assignment.engine,
            self.timings,
        )
        for slot in assignment.others:
            # The engine chose these slots itself, and their old content is gone.
            self._dispatcher.cache_index.forget(engine.places[slot])
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
        self._dispatcher.ended(assignment, now, timings, counted=counted)

    def _learn_overhead(self, timings: Timings) -> None:
        """Learn the overhead of a first token: network, chat template, slot."""
        engine, guess = self._assignment.engine, self._assignment.engine.learner.guess
        if (
            self.first is None
            or not self._timed
            or not engine.load.alone(self._assignment)
        ):
            return
        measured = min(max(self.first - timings.prompt_ms / 1000, 0.0), MOST_OVERHEAD)
        gain = max(OVERHEAD_GAIN, 1 / (engine.learner.samples + 1))
        moved = guess.overhead + gain * (measured - guess.overhead)
        engine.learner.guess = replace(guess, overhead=moved)

    def _began(self, now: float, total: int, cached: int) -> None:
        self.tokens, self.cached = max(1, total), max(0, min(cached, total))
        self._dispatcher.began(self._assignment, now, self.tokens, self.cached)

    def shown(self) -> dict[str, Any]:
        """Render what was predicted and what happened; seconds and tokens."""
        estimate, timings = self._assignment.estimate, self.timings
        rate = None
        if timings is not None and timings.predicted > 1 and timings.predicted_ms > 0:
            rate = 1000 * (timings.predicted - 1) / timings.predicted_ms
        writing = estimate.write / max(self._assignment.answer, 1.0)
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
                "prompt_tokens": self.tokens,
                "cached_tokens": self.cached,
                "tokens_per_second": rate and round(rate, 2),
                "answer_tokens": timings and timings.predicted,
            },
        }
