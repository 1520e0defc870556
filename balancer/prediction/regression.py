"""Regression: lines, ratios and quantiles over decaying samples. Pure.

Least squares over decaying sums. A `DecayingLine` weighs a sample by its tokens, so
that it is a ratio of sums and not a mean of rates: a short answer, whose time is
measured poorly, cannot move it far.
"""

from __future__ import annotations

from math import exp, log

import msgspec

HALF_LIFE = 20.0
"""Samples after which an old sample counts half."""

OUTLIER = 4.0
"""A sample that differs by more than this factor is moved to this factor."""

SURPRISE = 0.4
"""|ln(measured/expected)| that means, three times in a row, a changed machine."""

IN_A_ROW = 3

LEAST, MOST = 1e-7, 1e4
"""Least and most seconds per token; only broken clocks are outside."""

FADE = 0.5 ** (1.0 / HALF_LIFE)


class DecayingSums(msgspec.Struct):
    """y = base + slope·x, and the decaying weighted sums that give it."""

    base: float
    slope: float
    weight: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0

    def at(self, x: float) -> float:
        """Return y at x."""
        return self.base + self.slope * x

    def add(self, x: float, y: float, weight: float, fade: float) -> None:
        """Add a sample; earlier ones count `fade` of what they did."""
        self.fade(fade)
        self.weight += weight
        self.x += weight * x
        self.y += weight * y
        self.xx += weight * x * x
        self.xy += weight * x * y

    def fade(self, share: float) -> None:
        """Let all samples so far count for less."""
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
    """A line with a first guess."""

    streak: int = 0
    eager: int = 0

    def learn(self, x: float, y: float, weight: float, known_slope: float) -> None:
        """Learn from a sample of `weight` tokens; `known_slope` is the typical slope.

        It is relative to the base, and counts like a few samples: samples that all lie
        at one x say nothing about a slope.
        """
        expected = self.at(x)
        y = min(max(y, LEAST), MOST)
        if self.weight:
            y = min(max(y, expected / OUTLIER), expected * OUTLIER)
            self._notice(log(y / expected))
        fade = FADE
        if self.eager:
            self.eager -= 1
            fade **= 4
        self.add(x, y, weight, fade)
        self._fit(known_slope)

    def forget(self) -> None:
        """Forget the samples; the line stays until the next one."""
        self.fade(0.0)
        self.streak = self.eager = 0

    def _notice(self, surprise: float) -> None:
        """Forget faster for a while after a change, such as a laptop unplugged."""
        if abs(surprise) < SURPRISE or self.streak * surprise < 0:
            self.streak = 0
        if abs(surprise) >= SURPRISE:
            self.streak += 1 if surprise > 0 else -1
        if abs(self.streak) >= IN_A_ROW:
            self.streak, self.eager = 0, 10
            self.fade(1 / 16)

    def _fit(self, known_slope: float) -> None:
        mean_x, mean_y, spread, shared = self.moments()
        typical = mean_y * known_slope / (1 + known_slope * mean_x)
        # The prior counts like samples that differ by a quarter of the mean x.
        ridge = (0.25 * mean_x + 1e-9) ** 2
        slope = (shared + ridge * typical) / (spread + ridge)
        self.slope = min(max(slope, 0.0), 0.9 * mean_y / mean_x if mean_x else typical)
        self.base = mean_y - self.slope * mean_x


class FirstTokenLine(DecayingLine):
    """y = base + slope·x + share·waited: the time to a first token, measured outside.

    x are the tokens read, `waited` is the time in which other prompts were read;
    `share` of it, 0 to 1, delays a prompt. The base is the overhead.
    """

    share: float = 0.5
    w: float = 0.0
    ww: float = 0.0
    xw: float = 0.0
    wy: float = 0.0

    def fade(self, share: float) -> None:
        """See `DecayingSums.fade`."""
        super().fade(share)
        self.w *= share
        self.ww *= share
        self.xw *= share
        self.wy *= share

    def learn_first(self, x: float, waited: float, y: float, typical: float) -> None:
        """Learn from one first token; `typical` is its slope, if nothing shows more."""
        y = min(max(y, LEAST), MOST)
        if self.weight:
            expected = max(self.at(x) + self.share * waited, LEAST)
            y = min(max(y, expected / OUTLIER), expected * OUTLIER)
            self._notice(log(y / expected))
        self.eager, fade = max(0, self.eager - 1), FADE ** (4 if self.eager else 1)
        self.add(x, y, 1.0, fade)
        self.w += waited
        self.ww += waited * waited
        self.xw += x * waited
        self.wy += waited * y
        self._solve(typical)

    def _solve(self, typical: float) -> None:
        """Least squares, with priors that count as in `DecayingLine`."""
        mean_x, mean_y, spread, shared = self.moments()
        mean_w = self.w / self.weight
        ridge_x, ridge_w = (0.25 * mean_x + 1e-9) ** 2, (0.25 * mean_w + 1e-9) ** 2
        xx, yx = spread + ridge_x, shared + ridge_x * typical
        ww = max(0.0, self.ww / self.weight - mean_w * mean_w) + ridge_w
        wy = self.wy / self.weight - mean_w * mean_y + ridge_w * 0.5
        xw = self.xw / self.weight - mean_x * mean_w
        share = (xx * wy - xw * yx) / max(xx * ww - xw * xw, 1e-30)
        self.share = min(max(share, 0.0), 1.0)
        own = max(0.1 * mean_y, mean_y - self.share * mean_w)
        most = own / mean_x if mean_x else typical
        self.slope = min(max((yx - xw * self.share) / xx, 0.0), most)
        self.base = own - self.slope * mean_x


class DecayingExtra(DecayingSums):
    """A line whose base and slope are never below 0; 0 until the first sample."""

    base: float = 0.0
    slope: float = 0.0

    def learn(self, x: float, y: float) -> None:
        """Learn from a sample, which may be below 0."""
        self.add(x, y, 1.0, FADE)
        mean_x, mean_y, spread, shared = self.moments()
        # One sample proves little.
        mean_y *= self.weight / (self.weight + 1)
        # Samples at one x do not separate base from slope: take half of each.
        ridge = (0.25 * mean_x) ** 2 + 1e-9
        slope = (shared + ridge * 0.5 * mean_y / max(mean_x, 1e-9)) / (spread + ridge)
        self.slope = min(max(slope, 0.0), max(mean_y, 0.0) / max(mean_x, 1e-9))
        self.base = max(0.0, mean_y - self.slope * mean_x)


QUANTILE = 0.6
"""The quantile of answer lengths that counts: above the median, as waits add up."""


class DecayingRatio(msgspec.Struct):
    """A decaying ratio of sums."""

    above: float
    below: float

    def learn(self, above: float, below: float, fade: float = 0.97) -> None:
        """Learn from one sample."""
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
        """Step up far where it was too low, down a little where it was too high."""
        self.seen += 1
        step = max(0.08, 0.8 / self.seen**0.7)
        high = log(max(tokens, 1.0)) >= self.log
        self.log += step * (QUANTILE if high else QUANTILE - 1)

    @property
    def tokens(self) -> float:
        """The quantile."""
        return exp(self.log)
