"""Engine speed: its formula, its samples, and a first guess. Pure.

Two straight lines describe an engine. Prefill: seconds per token over the context it
attends to. Decode: seconds per token over the number of other sequences in the batch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgeserve.wire import EngineReport

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


LEAST_RATE = 1e-3
"""Tokens/s that nobody undercuts."""


def believed(engine: EngineReport) -> Speed:
    """What its node expects of it, or what its model's name makes likely."""
    launch, expected = engine.launch, engine.expected
    if expected is None:
        return guess(engine.variant, launch.threads, launch.gpu_layers != 0)
    return typical(expected.read, expected.write, launch.gpu_layers != 0)


def guess(variant: str, threads: int, on_gpu: bool) -> Speed:
    """A sane and slightly hopeful belief before the first measurement.

    Hopeful, because an engine believed to be slow gets no work that could prove the
    contrary. 30 tokens/s of prefill per core for a billion parameters is a desktop.
    """
    billions = parameters(variant)
    prefill = 4000.0 if on_gpu else 30.0 * max(1, threads)
    decode = 120.0 if on_gpu else 3.0 * max(1, threads) + 6.0
    return typical(prefill / billions, decode / billions, on_gpu)


def typical(reads: float, writes: float, on_gpu: bool) -> Speed:
    """A belief from tokens/s of one stream alone; the rest is as most machines are."""
    read, write = 1 / max(reads, LEAST_RATE), 1 / max(writes, LEAST_RATE)
    return Speed(
        prefill=read,
        attention=read / 16384,
        decode=write,
        slowdown=0.08 if on_gpu else 0.3,
    )


def parameters(variant: str) -> float:
    """Billions of parameters, where the name says so; else one."""
    found = re.search(
        r"(?<![a-z0-9.])(\d+(?:\.\d+)?)(b|m)(?![a-z0-9])", variant.lower()
    )
    if not found:
        return 1.0
    number = float(found[1]) / (1000 if found[2] == "m" else 1)
    return max(number, 0.05)
