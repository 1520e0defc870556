"""How far one model's predictions are from another's, as llama-perplexity counts. Pure.

Log-probabilities are natural, one row per position. The base's are kept in 16 bits, on
the 16 nats below each row's likeliest token: a position of SmolLM2 takes 96 KiB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Codes = NDArray[np.uint16]

RANGE = 16.0
"""Nats kept below the likeliest token; e^-16 is a ten-millionth."""

FEW = 10
"""With no more values than this, a standard error means nothing: it is given as 0."""


def log_softmax(logits: Floats) -> Floats:
    """Turn rows of logits into rows of log-probabilities."""
    top = logits.max(axis=1, keepdims=True)
    total = np.exp(logits - top).sum(axis=1, dtype=np.float64, keepdims=True)
    return np.asarray(logits - (top + np.log(total)), np.float32)


@dataclass(frozen=True)
class Packed:
    """Rows of log-probabilities in 16 bits: `floor + scale * codes`."""

    codes: Codes
    scale: Floats
    floor: Floats

    def unpack(self) -> Floats:
        """Return the rows, as near as 16 bits hold them."""
        wide = self.codes.astype(np.float32)
        return np.asarray(self.floor[:, None] + self.scale[:, None] * wide, np.float32)


def pack(log_probs: Floats) -> Packed:
    """Store rows in 16 bits; what is less likely than the range becomes its floor."""
    top = log_probs.max(axis=1)
    floor = np.maximum(log_probs.min(axis=1), top - np.float32(RANGE))
    scale = np.maximum(top - floor, np.float32(1e-9)) / np.float32(65535)
    steps = (log_probs - floor[:, None]) / scale[:, None]
    codes = np.clip(np.rint(steps), 0, 65535).astype(np.uint16)
    return Packed(codes, scale, floor)


def kl_divergence(base: Floats, other: Floats) -> Doubles:
    """Return, row by row, the sum of p_base (ln p_base - ln p_other), in nats.

    Tokens the base finds less likely than e^-16 do not count, as upstream.
    """
    share = np.where(base > -RANGE, np.exp(base), np.float32(0))
    total = (share * (base - other)).sum(axis=1, dtype=np.float64)
    return np.asarray(total, np.float64)


def mean_and_error(values: Doubles) -> tuple[float, float]:
    """Return the mean and its standard error."""
    count = values.size
    mean = float(values.mean())
    variance = float((values * values).mean()) - mean * mean
    if count <= FEW or variance <= 0:
        return mean, 0.0
    return mean, float(np.sqrt(variance / (count - 1)))


def perplexity(losses: Doubles) -> tuple[float, float]:
    """Return exp of the mean negative log-likelihood, and its standard error."""
    mean, error = mean_and_error(losses)
    value = float(np.exp(mean))
    return value, value * error


def log_ratio(losses: Doubles, base: Doubles) -> tuple[float, float]:
    """Return ln(perplexity / base's); paired, so that the text's own spread cancels."""
    return mean_and_error(losses - base)


def root_mean_square(losses: Doubles, base: Doubles) -> float:
    """Return the typical change of the true token's probability, 0 to 1."""
    change = np.exp(-losses) - np.exp(-base)
    return float(np.sqrt((change * change).mean()))
