"""Streams of completions against an endpoint: how many tokens come back, how fast."""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass
from typing import Any

import aiohttp

LONGEST_SECONDS = 120.0
"""An engine that hangs shall not take the rest of the borrowed time."""

FIRST_WORD = 300
"""Below this, the synthetic models' tokens are controls and bytes."""


@dataclass(frozen=True)
class Run:
    """One stream: when it was asked, and when each event came, in seconds.

    The engine's own times, in ms, where it tells them; else as they were seen here.
    """

    asked: float
    pieces: list[float]
    prompt: int
    predicted: int
    prompt_ms: float
    predicted_ms: float

    @property
    def first(self) -> float:
        return self.pieces[0]

    @property
    def last(self) -> float:
        return self.pieces[-1]


@dataclass(frozen=True)
class Figures:
    """What many streams did together. Speeds in tokens/s, times in seconds."""

    streams: int
    wall: float
    total: float
    together: float
    one_decode: float
    one_prefill: float
    first_p50: float


def load(
    url: str,
    model: str,
    *,
    streams: int,
    prompt: int,
    answer: int,
    vocabulary: int,
    seed: int = 0,
) -> Figures:
    """Ask `streams` completions at once, each of `prompt` random tokens."""
    dice = random.Random(f"{seed} {streams} {prompt}")  # noqa: S311 - a benchmark
    bodies = [
        body(model, tokens(dice, prompt, vocabulary), answer) for _ in range(streams)
    ]
    return figures(asyncio.run(_load(url, bodies)))


def tokens(dice: random.Random, count: int, vocabulary: int) -> list[int]:
    """Return random tokens that are words."""
    return [dice.randrange(FIRST_WORD, vocabulary) for _ in range(count)]


def body(model: str, prompt: list[int], answer: int) -> dict[str, Any]:
    """Return a request for exactly `answer` tokens."""
    return {
        "model": model,
        "prompt": prompt,
        "max_tokens": answer,
        "ignore_eos": True,
        "cache_prompt": False,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
    }


async def _load(url: str, bodies: list[dict[str, Any]]) -> list[Run]:
    timeout = aiohttp.ClientTimeout(total=LONGEST_SECONDS)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        return await asyncio.gather(*(run(session, url, body) for body in bodies))


async def run(session: aiohttp.ClientSession, url: str, asking: dict[str, Any]) -> Run:
    """Ask, and read to the end. Raises RuntimeError where there is no whole answer."""
    asked = time.perf_counter()
    pieces: list[float] = []
    timings: dict[str, Any] = {}
    usage: dict[str, Any] = {}
    async with session.post(f"{url}/v1/completions", json=asking) as response:
        if response.status != 200:
            raise RuntimeError(await response.text())
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            now = time.perf_counter()
            event = json.loads(line[6:])
            if event.get("choices"):
                pieces.append(now)
            timings = event.get("timings", timings)
            usage = event.get("usage") or usage
            if "error" in event:
                raise RuntimeError(str(event))
    if not pieces:
        raise RuntimeError("no word came")
    return Run(
        asked,
        pieces,
        timings.get("prompt_n") or usage["prompt_tokens"],
        timings.get("predicted_n") or usage["completion_tokens"],
        timings.get("prompt_ms", 1000 * (pieces[0] - asked)),
        timings.get("predicted_ms", 1000 * (pieces[-1] - pieces[0]) or 1.0),
    )


def figures(runs: list[Run]) -> Figures:
    """Sum up. `together` is the speed of writing while every stream writes."""
    start = min(run.asked for run in runs)
    end = max(run.last for run in runs)
    answered = sum(run.predicted for run in runs)
    asked = sum(run.prompt for run in runs)
    firsts = sorted(run.first - run.asked for run in runs)
    return Figures(
        streams=len(runs),
        wall=end - start,
        total=(answered + asked) / (end - start),
        together=together(runs),
        one_decode=runs[0].predicted / runs[0].predicted_ms * 1000,
        one_prefill=runs[0].prompt / runs[0].prompt_ms * 1000,
        first_p50=firsts[len(firsts) // 2],
    )


def together(runs: list[Run]) -> float:
    """Return the tokens/s while all write: none reads a prompt, none is done.

    Events stand for their share of the tokens; some tokens have none of their own.
    """
    begin, end = max(run.first for run in runs), min(run.last for run in runs)
    if begin >= end:
        return 0.0
    tokens = 0.0
    for run in runs:
        share = run.predicted / len(run.pieces)
        tokens += share * sum(begin < at <= end for at in run.pieces)
    return tokens / (end - begin)
