"""The probe that a joining engine answers before any user does. Pure.

128 tokens in, 16 out: 0.3 s on a GPU, 6 s on a Pi. Without it an engine that is
believed to be slow gets no work that could prove the contrary.
"""

from __future__ import annotations

import msgspec

from balancer.lane import Timings
from balancer.speed import CALIBRATION_ANSWER, CALIBRATION_PROMPT, Sample

ROUTE = "/completion"

_TEXT = " the" * CALIBRATION_PROMPT
"""One token a word in every tokenizer that matters; what it says does not."""


class _Timings(msgspec.Struct):
    prompt_n: int
    prompt_ms: float
    predicted_n: int
    predicted_ms: float
    cache_n: int = 0


class _Answer(msgspec.Struct):
    timings: _Timings


def body(variant: str) -> bytes:
    """The request; it leaves nothing in the cache that anybody could want."""
    return msgspec.json.encode(
        {
            "model": variant,
            "prompt": _TEXT,
            "n_predict": CALIBRATION_ANSWER,
            "cache_prompt": False,
            "ignore_eos": True,
            "stream": False,
        }
    )


def timings(answer: bytes) -> Timings | None:
    """What llama.cpp measured, from an answer or its last event; None where absent."""
    try:
        found = msgspec.json.decode(answer, type=_Answer).timings
    except msgspec.DecodeError:
        return None
    return Timings(
        found.cache_n,
        found.prompt_n,
        found.prompt_ms,
        found.predicted_n,
        found.predicted_ms,
    )


def sample(found: Timings) -> Sample:
    """What the probe says of the engine's speed; nothing else ran."""
    return Sample(
        found.cached,
        found.prompt,
        found.prompt_ms,
        found.predicted,
        found.predicted_ms,
    )
