"""Sums and quantiles of which old samples fade: what is kept over restarts. Pure."""

from __future__ import annotations

from math import exp, log

import msgspec

QUANTILE = 0.6
"""Which quantile of answer length counts: above the middle, as long waits add up."""


class Ratio(msgspec.Struct):
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


class Length(msgspec.Struct):
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
