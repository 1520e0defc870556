"""Search: which settings to try next, and which to keep. Pure.

One setting at a time, from the untuned launch: each direction of change is a ladder,
climbed while each step gains. A gain is measured again, in turns with the best so far,
because measurements on small machines are noisy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from statistics import mean, median, stdev

import msgspec

from edgeserve.wire import Launch
from node.planning.tunings import Figures

WEIGHTS = {"prefill": 0.2, "decode": 0.4, "aggregate": 0.4}
"""Weights of reading, writing for one stream, and writing for many."""

MARGIN = 0.03
"""A change must gain this much: less is noise, or not worth its memory."""

MOST_LOST = 0.05
"""How much one figure may lose in the search, where the others gain."""

NOT_WORSE = 0.03
"""How much one figure may lose in the end; repeated, that is its noise."""

DRAFT_READS = 0.25
"""How much reading may lose besides, where a draft model of a third reads it, too."""

TIE = 0.02
"""A gain up to this is a tie: the untuned settings win ties."""

MISSES = 2
"""Steps in a row without gain, after which a ladder is left."""

SWEEPS = 2
"""How often everything is tried, time permitting: noise may hide a gain."""

DOUBT, LEAST_DOUBT = {2: 3.08, 3: 1.89, 4: 1.64, 5: 1.53}, 1.48
"""Pairs of measurements → standard errors that chance exceeds in 10 % (Student)."""

CALL_SECONDS = 2.0
"""Longest decode call of a larger batch: a call cannot be interrupted."""

Step = Callable[[Launch], Launch]
Ladder = Sequence[Step]
Trials = Generator[Launch, Figures | None]


@dataclass(frozen=True)
class Axis:
    """One setting, and the ladders that change it."""

    name: str
    ladders: tuple[Ladder, ...]


def score(found: Figures, base: Figures) -> float:
    """Return how many times as good as `base`: the weighted geometric mean."""
    ratios = _ratios(found, base)
    return math.exp(sum(WEIGHTS[name] * math.log(ratios[name]) for name in WEIGHTS))


def _ratios(found: Figures, base: Figures) -> dict[str, float]:
    return {name: getattr(found, name) / getattr(base, name) for name in WEIGHTS}


def _kept(found: Figures, base: Figures, *, drafted: bool) -> dict[str, float]:
    """Return how much of each figure is left, but for what a draft model must read."""
    ratios = _ratios(found, base)
    if drafted:
        ratios["prefill"] /= 1 - DRAFT_READS
    return ratios


class Search:
    """Asks for measurements, and keeps the best launch so far."""

    def __init__(
        self, untuned: Launch, axes: Sequence[Axis], fits: Callable[[Launch], bool]
    ) -> None:
        self._best = untuned
        self._promising: Launch | None = None
        self.base: Figures | None = None
        self._untuned = untuned
        self._axes = axes
        self._fits = fits
        self._tried = [untuned]
        self._broken: list[Launch] = []

    @property
    def best(self) -> Launch:
        """The best launch so far, even if it is still to be measured again."""
        return self._promising or self._best

    def trials(self) -> Trials:
        """Yield launches to measure; None for one that does not run.

        May be closed at any time.
        """
        self.base = yield self._untuned
        if self.base is None:
            return
        figures = self.base
        for _ in range(SWEEPS):
            for axis in self._axes:
                for ladder in axis.ladders:
                    figures = yield from self._climb(ladder, figures)
            again = yield self._best
            figures = average([figures, again]) if again else figures
            self._tried = [self._untuned, self._best, *self._broken]

    def _climb(
        self, ladder: Ladder, figures: Figures
    ) -> Generator[Launch, Figures | None, Figures]:
        """Climb while steps gain; returns the best launch's figures."""
        missed = 0
        for step in ladder:
            launch = step(self._best)
            if launch in self._tried or not self._allowed(launch):
                continue
            self._tried.append(launch)
            figures, pays = yield from self._compare(launch, figures)
            missed = 0 if pays else missed + 1
            if missed == MISSES:
                break
            self._best = launch if pays else self._best
        return figures

    def _compare(
        self, launch: Launch, holder: Figures
    ) -> Generator[Launch, Figures | None, tuple[Figures, bool]]:
        """Measure a challenger and, where it seems better, both once more."""
        first = yield launch
        if first is None:
            self._broken.append(launch)
        drafted = bool(launch.draft)
        if first is None or not self._better(first, holder, drafted=drafted):
            return holder, False
        self._promising = launch
        again = yield self._best
        second = yield launch
        self._promising = None
        if again is None or second is None:
            return holder, False
        held, challenger = average([holder, again]), average([first, second])
        if self._best == self._untuned:
            self.base = held
        pays = self._better(challenger, held, drafted=drafted)
        return (challenger if pays else held), pays

    def _better(self, found: Figures, holder: Figures, *, drafted: bool) -> bool:
        assert self.base is not None  # noqa: S101 - it is measured first
        gains = score(found, holder) >= 1 + MARGIN
        kept = _kept(found, self.base, drafted=drafted)
        return gains and min(kept.values()) >= 1 - MOST_LOST

    def _allowed(self, launch: Launch) -> bool:
        """Whether it fits in memory, and whether its calls stay short."""
        assert self.base is not None  # noqa: S101 - it is measured first
        seconds = launch.batch / self.base.prefill
        quick = launch.batch <= self._untuned.batch or seconds <= CALL_SECONDS
        return quick and self._fits(launch)


@dataclass(frozen=True)
class Verdict:
    """How much better the tuned settings are, and whether to use them."""

    gain: float
    accepted: bool


def verdict(
    pairs: Sequence[tuple[Figures, Figures]], *, drafted: bool = False
) -> Verdict:
    """Judge (untuned, tuned) figures measured in turns.

    The gain must be larger than a tie and stand out from the noise, and no figure may
    have become worse, but for the reading that a draft model does besides. Medians,
    because other processes may spoil a measurement or two.
    """
    logs = [math.log(score(tuned, untuned)) for untuned, tuned in pairs]
    gain = median(logs)
    # More than twice the gain is a bad measurement of the untuned: limit it.
    fair = [min(each, 2 * gain) for each in logs]
    error = stdev(fair) / math.sqrt(len(fair)) if len(fair) > 1 else math.inf
    doubt = error * DOUBT.get(len(fair), LEAST_DOUBT)
    ratios = [_kept(tuned, untuned, drafted=drafted) for untuned, tuned in pairs]
    worst = min(median(math.log(each[name]) for each in ratios) for name in WEIGHTS)
    clear = gain > math.log(1 + TIE) and mean(fair) > doubt
    return Verdict(math.exp(gain) - 1, clear and worst > math.log(1 - NOT_WORSE))


def average(figures: Sequence[Figures]) -> Figures:
    """Return the geometric mean of each figure."""
    return Figures(
        **{
            name: math.exp(mean(math.log(getattr(each, name)) for each in figures))
            for name in WEIGHTS
        }
    )


def put(**changes: object) -> Step:
    """Return a step that sets these."""
    return lambda launch: msgspec.structs.replace(launch, **changes)
