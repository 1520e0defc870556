"""Benchmark run: chooses the models, and measures endpoints in turns."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from rich.console import Console
from rich.progress import Progress

from edgeserve.cli.bench.figures import Figures, figures
from edgeserve.cli.bench.load import Ask, Target, asked, measured, session
from edgeserve.cli.client import Endpoint, NoAnswer
from edgeserve.errors import CommandError


class NothingMeasured(CommandError):
    """No request was answered, or there is no model to ask."""


@dataclass(frozen=True, kw_only=True)
class BenchPlan:
    """What is measured: numbers of streams, requests of each stream, limits."""

    streams: tuple[int, ...]
    rounds: int
    seconds: float
    ask: Ask


@dataclass(frozen=True)
class Contestant:
    """One endpoint, and how it is asked."""

    place: Endpoint
    target: Target

    @property
    def name(self) -> str:
        """Host and port."""
        return urlsplit(self.place.url).netloc


def contestant(place: Endpoint, wanted: str | None) -> Contestant:
    """Choose the model, if none is wanted. Raises NoAnswer, NothingMeasured."""
    pinned = place.fingerprint or place.own
    target = Target(
        url=place.url,
        model=wanted or _first_model(place),
        headers=dict(place.headers()),
        ssl=aiohttp.Fingerprint(bytes.fromhex(pinned)) if pinned else True,
    )
    return Contestant(place, target)


def _first_model(place: Endpoint) -> str:
    listed = place.get("/v1/models")
    entries = listed.get("data") if isinstance(listed, dict) else None
    for each in entries or ():
        able = each.get("abilities") or ["chat"]
        if each.get("id") and "chat" in able:
            return str(each["id"])
    raise NothingMeasured(f"{place.url} lists no chat model; name one with --model")


def compared(
    contestants: Sequence[Contestant], plan: BenchPlan
) -> tuple[list[Figures], bool]:
    """Measure each number of streams at all endpoints. Raises NothingMeasured.

    Return what is known, and whether it is all: a run may be interrupted.
    """
    found: list[Figures] = []
    try:
        asyncio.run(_compare(contestants, plan, found))
    except KeyboardInterrupt:
        if not found:
            raise
        return found, False
    return found, True


async def _compare(
    contestants: Sequence[Contestant], plan: BenchPlan, found: list[Figures]
) -> None:
    with Progress(console=Console(stderr=True)) as bars:
        async with session() as client:
            for each in contestants:  # the first request may load a model
                first = await asked(client, each.target, Ask(prompt=8, answer=2))
                if first.error:
                    raise NothingMeasured(f"{each.place.url}: {first.error}")
            for streams in plan.streams:
                for each in contestants:
                    known = await _measured(client, each, plan, streams, bars)
                    found.append(known)


async def _measured(
    client: aiohttp.ClientSession,
    each: Contestant,
    plan: BenchPlan,
    streams: int,
    bars: Progress,
) -> Figures:
    count = streams * plan.rounds
    bar = bars.add_task(f"{each.name}, {streams} at once", total=count)
    samples = await measured(
        client,
        each.target,
        plan.ask,
        streams=streams,
        requests=count,
        seconds=plan.seconds,
        done=lambda: bars.advance(bar),
    )
    bars.update(bar, completed=count)
    memory = await asyncio.to_thread(_memory, each)
    return figures(each.name, streams, samples, memory)


def _memory(each: Contestant) -> int:
    """Return what the engines of a model take, where the endpoint tells it."""
    with suppress(NoAnswer, KeyError, TypeError, AttributeError):
        nodes: list[dict[str, Any]] = each.place.get("/edgeserve/v1/nodes")
        return sum(
            int(engine.get("memory") or 0)
            for node in nodes
            for engine in (node.get("report") or {}).get("engines", ())
            if each.target.model in {engine.get("model"), engine.get("variant")}
            and engine.get("state") in {"ready", "busy"}
        )
    return 0
