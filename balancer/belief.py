"""What is believed of an engine before anything was measured. Pure."""

from __future__ import annotations

import re

from balancer.speed import Speed
from edgeserve.wire import EngineReport

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
    return Speed(read, read / 16384, write, 0.08 if on_gpu else 0.3)


def parameters(variant: str) -> float:
    """Billions of parameters, where the name says so; else one."""
    found = re.search(
        r"(?<![a-z0-9.])(\d+(?:\.\d+)?)(b|m)(?![a-z0-9])", variant.lower()
    )
    if not found:
        return 1.0
    number = float(found[1]) / (1000 if found[2] == "m" else 1)
    return max(number, 0.05)
