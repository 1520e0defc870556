"""Tracking: follow one assigned request, and compare it with its prediction. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from balancer.dialects.timings import Timings
from balancer.prediction.speed import SMALLEST_PREFILL, Sample
from balancer.routing.dispatcher import Assignment, Dispatcher

Clock = Callable[[], float]

OVERHEAD_GAIN = 0.2
MOST_OVERHEAD = 1.0
"""Seconds."""


class AttemptTracker:
    """Observes the attempt of a request that `Dispatcher` has assigned."""

    __slots__ = (
        "_bound",
        "_clock",
        "_dispatcher",
        "_moved",
        "_over",
        "_reads",
        "_sent",
        "_timed",
        "cached",
        "first",
        "first_seconds",
        "slot",
        "timings",
        "tokens",
        "whole",
    )

    def __init__(
        self,
        dispatcher: Dispatcher,
        bound: Assignment,
        clock: Clock,
        moved: Callable[[], None],
    ) -> None:
        self.slot: int | None = bound.slot if bound.lane.pins else None
        self.first_seconds: float | None = bound.parts.first
        self.cached: int | None = None
        self.tokens: int | None = None
        self.first: float | None = None
        self.whole = False
        self._dispatcher, self._bound, self._clock = dispatcher, bound, clock
        self._moved = moved
        self._sent = self._reads = bound.started
        self.timings: Timings | None = None
        self._over = self._timed = False

    @property
    def slots(self) -> tuple[int, ...]:
        """The slots that it has, by their numbers."""
        return (self._bound.slot, *self._bound.others)

    @property
    def model(self) -> str:
        """The model that answers."""
        return self._bound.lane.model

    def progress(self, total: int, cached: int, processed: int) -> None:
        """Correct the prediction; the first one says what was found cached."""
        if self._over or self._bound.lane.gone:
            return
        now = self._clock()
        if self.tokens is None:
            self._began(now, total, cached)
            self._reads = now
        elif not self._bound.lane.learner.calibrated:
            self._glimpse(processed, now)
        self._bound.lane.progressed(self._bound, now, processed)
        self._moved()

    def _glimpse(self, processed: int, now: float) -> None:
        """A first batch tells the speed of an engine that nobody has measured yet."""
        lane, cached = self._bound.lane, self.cached or 0
        alone = all(other is self._bound for other in lane.traffic.reading.values())
        read, spent = processed - cached, now - self._reads
        if alone and read >= SMALLEST_PREFILL:
            ms = 1000 * spent / lane.scale
            lane.learner.learn(
                Sample(
                    cached=cached,
                    prompt=read,
                    prompt_ms=ms,
                    predicted=0,
                    predicted_ms=0.0,
                )
            )

    def wrote(self) -> None:
        """The prompt is read."""
        if self._over or self.first is not None:
            return
        now = self._clock()
        self.first = now - self._sent
        if not self._bound.lane.gone:
            self._bound.lane.wrote(self._bound, now)
            self._moved()

    def answered(self, timings: Timings | None) -> None:
        """Keep what is learned from when the slot is given back."""
        self._timed = timings is not None and timings.predicted_ms > 0
        self.whole, self.timings = True, timings and self._seen(timings)
        if timings is not None and self._timed and self.first is None:
            # It came at once: its first token did so long before its last.
            spent = self._clock() - self._sent
            self.first = max(0.0, spent - timings.predicted_ms / 1000)

    def _seen(self, timings: Timings) -> Timings:
        """Put what was seen on the wire in the place of times that were not told."""
        if self._timed or self.first is None:
            return timings
        reading = max(0.0, self.first - self._bound.lane.speed.overhead)
        writing = self._clock() - self._sent - self.first
        return replace(timings, prompt_ms=1000 * reading, predicted_ms=1000 * writing)

    def over(self) -> None:
        """The slot is given back."""
        if self._over:
            return
        self._over = True
        if not self._bound.lane.gone:
            self._end(self._clock())

    def _end(self, now: float) -> None:
        bound, lane, timings = self._bound, self._bound.lane, self.timings
        for slot in bound.others:
            # The engine chose these itself, and what they held is gone.
            self._dispatcher.holdings.forget(lane.places[slot])
        if not self.whole:
            lane.drop(bound, now)
            return
        if timings is None or bound.request.slots > 1:
            lane.end(bound, now)
            return
        counted = self.tokens is not None
        if not counted:
            self.tokens = max(1, timings.cached + timings.prompt)
            self.cached = timings.cached
        self._learn_overhead(timings)
        self._dispatcher.ended(bound, now, timings, counted=counted)

    def _learn_overhead(self, timings: Timings) -> None:
        """What a first token takes beyond its prompt: the way, the template, a slot."""
        lane, guess = self._bound.lane, self._bound.lane.learner.guess
        if self.first is None or not self._timed or not lane.traffic.alone(self._bound):
            return
        seen = min(max(self.first - timings.prompt_ms / 1000, 0.0), MOST_OVERHEAD)
        gain = max(OVERHEAD_GAIN, 1 / (lane.learner.samples + 1))
        moved = guess.overhead + gain * (seen - guess.overhead)
        lane.learner.guess = replace(guess, overhead=moved)

    def _began(self, now: float, total: int, cached: int) -> None:
        self.tokens, self.cached = max(1, total), max(0, min(cached, total))
        self._dispatcher.began(self._bound, now, self.tokens, self.cached)

    def shown(self) -> dict[str, Any]:
        """What was predicted, and what came of it; seconds and tokens."""
        parts, timings = self._bound.parts, self.timings
        rate = None
        if timings is not None and timings.predicted > 1 and timings.predicted_ms > 0:
            rate = 1000 * (timings.predicted - 1) / timings.predicted_ms
        writing = parts.write / max(self._bound.answer, 1.0)
        return {
            "predicted": {
                "first_token_seconds": round(parts.first, 4),
                "read_seconds": round(parts.read, 4),
                "prompt_tokens": round(parts.tokens),
                "cached_tokens": round(parts.cached),
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
