"""Comparison results: measured quality, size and speed of variants."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import msgspec


class Quality(msgspec.Struct, frozen=True, kw_only=True, tag="quality"):
    """Quality of predictions; pairs are (mean, standard error).

    Perplexity is exp of the mean negative log-likelihood. Divergence is from the base,
    in nats; `log_ratio` is ln(perplexity / base's); `same_top` is the share of
    positions where both have the same likeliest token; `rms` is the root mean square
    change of the true token's probability. The last four are None for the base itself.
    """

    tokens: int
    perplexity: tuple[float, float]
    divergence: tuple[float, float] | None = None
    log_ratio: tuple[float, float] | None = None
    same_top: tuple[float, float] | None = None
    rms: float | None = None


class Speeds(msgspec.Struct, frozen=True, kw_only=True, tag="speeds"):
    """Tokens per second, one figure per repeat; `by` is the tool that measured."""

    prefill: tuple[float, ...]
    decode: tuple[float, ...]
    threads: int
    by: str


OWN_TEXT = Path(__file__).with_name("text.txt")
"""Built-in text of about 2,000 tokens: a story, a manual, a letter and answers."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one file. `bits` are per weight; speeds are None if not measured."""

    file: str
    type: str
    bytes: int
    bits: float
    fingerprint: str
    quality: Quality
    speeds: Speeds | None = None

    @property
    def prefill(self) -> float | None:
        """Prompt tokens per second, the median of the repeats."""
        return median(self.speeds.prefill) if self.speeds else None

    @property
    def decode(self) -> float | None:
        """Tokens written per second, the median of the repeats."""
        return median(self.speeds.decode) if self.speeds else None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a base and its variants, and how and where they were measured."""

    format: int = 1
    base: Measured
    dequantized_from: str | None
    variants: tuple[Measured, ...]
    text: str
    context: int
    machine: str
    library: str
    made: str
