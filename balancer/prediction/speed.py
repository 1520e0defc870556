"""Engine speed: the formula, the samples, and the first guess. Pure.

Two straight lines describe an engine. Prefill: seconds per token over the context it
attends to. Decode: seconds per token over the number of other sequences in the batch.
"""

from __future__ import annotations

import re

import msgspec

from edgeserve.wire import EngineReport

SMALLEST_PREFILL = 32
"""Tokens below which a prefill says more about overhead than about speed."""

SMALLEST_DECODE = 4

FEW = 64
"""On CPUs llama.cpp reads fewer tokens than this by another method.

It then computes attention token by token, as in decoding: on SmolLM2 five times as
slowly (6 instead of 1.2 µs per token and earlier token). A GPU takes time to start.
"""

CALIBRATION_PROMPT = 128
CALIBRATION_ANSWER = 16
"""Tokens of the probe that a new engine gets before the first user's request."""


class Speed(msgspec.Struct, frozen=True):
    """The expected speed of an engine. Seconds and tokens.

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
        """Return the time to read `tokens` behind `cached` ones, alone."""
        pairs = tokens * (cached + tokens / 2)
        seconds = tokens * self.prefill + self.attention * pairs
        if 0 < tokens < FEW:
            seconds += self.few_start + self.few * pairs
        return seconds

    def token_seconds(self, sequences: int) -> float:
        """Return the time between two tokens of one of so many sequences."""
        return self.decode * (1 + self.slowdown * max(0, sequences - 1))

    def half_step(self, sequences: int) -> float:
        """Return the time until so many answers have got their token, on average."""
        return self.token_seconds(sequences) / 2 if sequences else 0.0


ALONE = 0.1
"""Other prompts may have had this share of the time of one that was read alone."""


class Sample(msgspec.Struct, frozen=True):
    """The `timings` of one answer, and what else its engine did. Milliseconds.

    `waited_ms` is prefill time of other prompts; `stalled_ms` is decode time during
    which other prompts were read; `sequences` is the mean number of decoding ones.
    `outside`: they were measured here, so that `prompt_ms` is the whole time to the
    first token, 0 tokens of `prompt` meaning that it says nothing.
    """

    cached: int
    prompt: int
    prompt_ms: float
    predicted: int
    predicted_ms: float
    waited_ms: float = 0.0
    stalled_ms: float = 0.0
    sequences: float = 1.0
    outside: bool = False

    @property
    def read_alone(self) -> bool:
        """Whether hardly another prompt was read meanwhile."""
        return self.waited_ms < ALONE * self.prompt_ms


LEAST_RATE = 1e-3
"""The least tokens/s of any engine."""


def expected_speed(engine: EngineReport) -> Speed:
    """Return the speed that its node expects, or that its model's name makes likely."""
    launch, expected = engine.launch, engine.expected
    if expected is None:
        return guess(engine.variant, launch.threads, launch.gpu_layers != 0)
    return typical(expected.read, expected.write, launch.gpu_layers != 0)


def guess(variant: str, threads: int, on_gpu: bool) -> Speed:
    """Return a slightly optimistic guess before the first measurement.

    Optimistic, because an engine that seems slow gets no requests that could prove the
    contrary. A desktop reads 30 tokens/s per core for a billion parameters.
    """
    billions = parameters(variant)
    prefill = 4000.0 if on_gpu else 30.0 * max(1, threads)
    decode = 120.0 if on_gpu else 3.0 * max(1, threads) + 6.0
    return typical(prefill / billions, decode / billions, on_gpu)


def typical(reads: float, writes: float, on_gpu: bool) -> Speed:
    """Return a speed from tokens/s of one sequence; the rest is typical."""
    read, write = 1 / max(reads, LEAST_RATE), 1 / max(writes, LEAST_RATE)
    return Speed(
        prefill=read,
        attention=read / 16384,
        decode=write,
        slowdown=0.08 if on_gpu else 0.3,
    )


def parameters(variant: str) -> float:
    """Return billions of parameters from the name, else one."""
    found = re.search(
        r"(?<![a-z0-9.])(\d+(?:\.\d+)?)(b|m)(?![a-z0-9])", variant.lower()
    )
    if not found:
        return 1.0
    number = float(found[1]) / (1000 if found[2] == "m" else 1)
    return max(number, 0.05)
