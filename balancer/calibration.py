"""The probes that a joining engine answers before any user does. Pure.

A short one tells the order of magnitude: 32 tokens in, 5 out, 0.1 s on a GPU and 2 s on
a Pi. Where it came back quickly, it was mostly the way there and back that it measured,
and a longer one follows: 128 in, 16 out. Without them an engine that is believed to be
slow gets no work that could prove the contrary.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from balancer.job import Timings
from balancer.speed import (
    CALIBRATION_ANSWER,
    CALIBRATION_PROMPT,
    SMALLEST_DECODE,
    SMALLEST_PREFILL,
    Sample,
    Speed,
)

ROUTE = "/completion"

QUICK_SECONDS = 0.5
"""A short probe that took less is followed by a long one."""

_WORD = " the"
"""One token in every tokenizer that matters; what it says does not."""


@dataclass(frozen=True, slots=True)
class Probe:
    """How many tokens are asked to be read and written."""

    prompt: int
    answer: int

    def body(self, variant: str) -> bytes:
        """The request; it leaves nothing in the cache that anybody could want."""
        return msgspec.json.encode(
            {
                "model": variant,
                "prompt": _WORD * self.prompt,
                "n_predict": self.answer,
                "cache_prompt": False,
                "ignore_eos": True,
                "stream": False,
            }
        )

    def seconds(self, speed: Speed) -> float:
        """How long it will take an engine of that speed."""
        reading = speed.prefill_seconds(self.prompt, 0)
        return speed.overhead + reading + speed.token_seconds(1) * (self.answer - 1)


SHORT = Probe(SMALLEST_PREFILL, SMALLEST_DECODE + 1)
LONG = Probe(CALIBRATION_PROMPT, CALIBRATION_ANSWER)


def sample(found: Timings) -> Sample:
    """What a probe says of the engine's speed; nothing else ran."""
    return Sample(
        found.cached,
        found.prompt,
        found.prompt_ms,
        found.predicted,
        found.predicted_ms,
    )
