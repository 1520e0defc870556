"""Regression: lines, ratios and quantiles of samples that fade with time. Pure.

Least squares over sums that fade. A `DecayingLine` weighs a sample by its tokens; that
is what makes it a ratio of sums and not a mean of rates, so that a short answer with a
clumsy clock cannot move it far.
"""

from __future__ import annotations

from math import exp, log

import msgspec

HALF_LIFE = 20.0
"""Samples after which an old sample counts half."""

OUTLIER = 4.0
"""A sample further than this factor from what is believed is pulled in to it."""

SURPRISE = 0.4
"""|ln(seen/believed)| that, three times in a row, means that the machine changed."""

IN_A_ROW = 3

LEAST, MOST = 1e-7, 1e4
"""Seconds a token that no machine undercuts or exceeds; clocks that stood still do."""

FADE = 0.5 ** (1.0 / HALF_LIFE)


class DecayingSums(msgspec.Struct):
    """y = base + slope·x, and the decaying weighted sums that it is drawn from."""

    base: float
    slope: float
    weight: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0

    def at(self, x: float) -> float:
        """What the line says."""
        return self.base + self.slope * x

    def add(self, x: float, y: float, weight: float, fade: float) -> None:
        """Take in a sample; what was there before counts `fade` of what it did."""
        self.fade(fade)
        self.weight += weight
        self.x += weight * x
        self.y += weight * y
        self.xx += weight * x * x
        self.xy += weight * x * y

    def fade(self, share: float) -> None:
        """Let all that was seen count for less."""
        self.weight *= share
        self.x *= share
        self.y *= share
        self.xx *= share
        self.xy *= share

    def moments(self) -> tuple[float, float, float, float]:
        """Return the means of x and y, the variance of x and the covariance."""
        mean_x, mean_y = self.x / self.weight, self.y / self.weight
        spread = max(0.0, self.xx / self.weight - mean_x * mean_x)
        return mean_x, mean_y, spread, self.xy / self.weight - mean_x * mean_y


class DecayingLine(DecayingSums):
    """A line that begins somewhere; what it began with fades last."""

    streak: int = 0
    eager: int = 0

    def learn(self, x: float, y: float, weight: float, known_slope: float) -> None:
        """Take in one sample of `weight` tokens; `known_slope` is what is typical.

        The typical slope, relative to the base, counts as much as a little evidence:
        samples that all lie at one x say nothing about a slope.
        """
        believed = self.at(x)
        y = min(max(y, LEAST), MOST)
        if self.weight:
            y = min(max(y, believed / OUTLIER), believed * OUTLIER)
            self._notice(log(y / believed))
        fade = FADE
        if self.eager:
            self.eager -= 1
            fade **= 4
        self.add(x, y, weight, fade)
        self._fit(known_slope)

    def forget(self) -> None:
        """What it says stays, until the next sample says otherwise."""
        self.fade(0.0)
        self.streak = self.eager = 0

    def _notice(self, surprise: float) -> None:
        """A laptop unplugged or a Pi throttled: forget faster for a while."""
        if abs(surprise) < SURPRISE or self.streak * surprise < 0:
            self.streak = 0
        if abs(surprise) >= SURPRISE:
            self.streak += 1 if surprise > 0 else -1
        if abs(self.streak) >= IN_A_ROW:
            self.streak, self.eager = 0, 10
            self.fade(1 / 16)

    def _fit(self, known_slope: float) -> None:
        mean_x, mean_y, spread, shared = self.moments()
        expected = mean_y * known_slope / (1 + known_slope * mean_x)
        # The prior is worth the evidence of samples that differ by a quarter of mean x.
        ridge = (0.25 * mean_x + 1e-9) ** 2
        slope = (shared + ridge * expected) / (spread + ridge)
        self.slope = min(max(slope, 0.0), 0.9 * mean_y / mean_x if mean_x else expected)
        self.base = mean_y - self.slope * mean_x


class DecayingExtra(DecayingSums):
    """A line of which neither part is below 0; 0 until a sample is seen."""

    base: float = 0.0
    slope: float = 0.0

    def learn(self, x: float, y: float) -> None:
        """Take in one sample, which may lie below 0."""
        self.add(x, y, 1.0, FADE)
        mean_x, mean_y, spread, shared = self.moments()
        # One sample is no proof that there is anything.
        mean_y *= self.weight / (self.weight + 1)
        # Samples that all lie at one x do not tell a base from a slope: half of each.
        ridge = (0.25 * mean_x) ** 2 + 1e-9
        slope = (shared + ridge * 0.5 * mean_y / max(mean_x, 1e-9)) / (spread + ridge)
        self.slope = min(max(slope, 0.0), max(mean_y, 0.0) / max(mean_x, 1e-9))
        self.base = max(0.0, mean_y - self.slope * mean_x)


QUANTILE = 0.6
"""Which quantile of answer length counts: above the middle, as long waits add up."""


class DecayingRatio(msgspec.Struct):
    """A decaying ratio of sums."""

    above: float
    below: float

    def learn(self, above: float, below: float, fade: float = 0.97) -> None:
        """Take in one sample."""
        self.above = self.above * fade + above
        self.below = self.below * fade + below

    @property
    def value(self) -> float:
        """The ratio."""
        return self.above / self.below


class DecayingQuantile(msgspec.Struct):
    """A decaying quantile of token counts, tracked by steps in its logarithm."""

    log: float
    seen: int = 0

    def learn(self, tokens: float) -> None:
        """Step up a lot where it was too low, down a little where too high."""
        self.seen += 1
        step = max(0.08, 0.8 / self.seen**0.7)
        high = log(max(tokens, 1.0)) >= self.log
        self.log += step * (QUANTILE if high else QUANTILE - 1)

    @property
    def tokens(self) -> float:
        """The quantile."""
        return exp(self.log)
