"""How fast an engine is, and what it measured of itself. Pure.

Two straight lines describe an engine. Prefill: seconds per token over the context it
attends to. Decode: seconds per token over the number of other sequences in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

SMALLEST_PREFILL = 32
"""Tokens below which a prefill says more about overhead than about speed."""

SMALLEST_DECODE = 4

FEW = 64
"""Fewer tokens than this llama.cpp reads by another method on processors.

Attention is then computed token by token as in decoding: on SmolLM2, five times as
slowly (1.2 and 6 µs per token and token before it). A GPU needs its time to start.
"""

CALIBRATION_PROMPT = 128
CALIBRATION_ANSWER = 16
"""Tokens of the probe that a joining engine gets before any user does."""


@dataclass(frozen=True, slots=True)
class Speed:
    """What is believed of an engine. Seconds and tokens.

    Reading m tokens behind c cached ones takes `prefill·m + attention·m·(c + m/2)`;
    fewer than FEW take `few_start + few·m·(c + m/2)` seconds more. One of k
    sequences gets a token each `decode·(1 + slowdown·(k - 1))`.
    """

    prefill: float
    attention: float
    decode: float
    slowdown: float
    overhead: float = 0.005
    few_start: float = 0.0
    few: float = 0.0

    def prefill_seconds(self, tokens: float, cached: float) -> float:
        """Time to read `tokens` behind `cached` ones, with the engine to itself."""
        pairs = tokens * (cached + tokens / 2)
        seconds = tokens * self.prefill + self.attention * pairs
        if 0 < tokens < FEW:
            seconds += self.few_start + self.few * pairs
        return seconds

    def token_seconds(self, sequences: int) -> float:
        """Time between two tokens of one sequence when `sequences` are decoding."""
        return self.decode * (1 + self.slowdown * max(0, sequences - 1))


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer's `timings`, and what else its engine was doing. Milliseconds.

    `waited` is prefill time that went to other prompts; `stalled` is decode time during
    which other prompts were read; `sequences` is the mean number decoding.
    """

    cached: int
    prompt: int
    prompt_ms: float
    predicted: int
    predicted_ms: float
    waited_ms: float = 0.0
    stalled_ms: float = 0.0
    sequences: float = 1.0
