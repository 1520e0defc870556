"""One contest: a contestant and a seed, with a fleet of its own, under each load."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from node.engines.process import free_port
from tests.bench.asking import PATH, Answer, Messages, ask, session
from tests.bench.fleet.contestants import Contestant
from tests.bench.fleet.engines import MODEL, Engine, bare, fleet, until_quiet
from tests.bench.fleet.loads import Ask, in_pairs
from tests.bench.fleet.throttle import Hold
from tests.bench.proxy.process import await_ready, running

Load = Callable[[Ask, int], Awaitable[None]]
COLD = "cold burst"
CAPACITY_REQUESTS, WRITTEN = 40, 64
MOST_SECONDS = 45.0
"""Of one load."""

CALM_SECONDS = 0.5
"""Between two loads, for what a balancer still does after an answer."""


@dataclass(frozen=True)
class Attempt:
    """One attempt of EdgeServe, by its own account. Seconds.

    `at` counts from when the balancer knew the nodes; `first` and `predicted` are times
    to the first token.
    """

    at: float
    node: str
    predicted: float | None
    first: float | None
    outcome: str
    number: int


@dataclass
class Run:
    """One contestant under one load, with one seed."""

    contestant: str
    load: str
    seed: int
    began: float
    wall: float
    answers: list[Answer]
    cpu: dict[str, float]
    attempts: list[Attempt] = field(default_factory=list[Attempt])


@dataclass(frozen=True)
class Capacity:
    """What one engine does with a whole core: requests of the mixture, and tokens.

    `requests` and the tokens are per second of processor time.
    """

    requests: float
    prefill: float
    decode: float


async def played(
    port: int, load: Load, seed: int, contestant: Contestant | None = None
) -> list[Answer]:
    """Run a load against a port, and return all answers in order of their asking.

    It is cut off after a while: one bad router shall not take the time of all.
    """
    answers: list[Answer] = []
    url = f"http://127.0.0.1:{port}{PATH}"
    async with session() as client:

        async def asked(messages: Messages, tokens: int) -> Answer:
            body = {
                "model": MODEL,
                "messages": messages,
                "max_tokens": tokens,
                "ignore_eos": True,
                "temperature": 0,
            }
            named = {"named": contestant.named} if contestant else {}
            answers.append(Answer(time.monotonic()))
            return await ask(client, url, body, **named, answer=answers[-1])

        with suppress(TimeoutError):
            async with asyncio.timeout(MOST_SECONDS):
                await load(asked, seed)
    for each in answers:
        each.cut_off(time.monotonic())
    return answers


def contest(
    contestant: Contestant,
    loads: dict[str, Load],
    seed: int,
    folder: Path,
    hold: Hold,
) -> list[Run]:
    """Put one contestant through the loads, with new engines."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    with fleet(folder, hold, nodes=contestant.nodes) as engines:
        since = [each.cpu_seconds() for each in engines]
        command = contestant.command(port, [each.port for each in engines], folder)
        with running(command, None, folder / "log"):
            await_ready(port, len(engines) if contestant.nodes else 0)
            ready = time.monotonic()
            runs: list[Run] = []
            for name, load in loads.items():
                if contestant.nodes and name != COLD and not runs:
                    until_quiet(engines, since)
                runs.append(_run(contestant, name, load, seed, port, engines))
                time.sleep(CALM_SECONDS)
            if contestant.nodes:
                _add_attempts(runs, port, ready)
    return runs


def _run(
    contestant: Contestant,
    name: str,
    load: Load,
    seed: int,
    port: int,
    engines: Sequence[Engine],
) -> Run:
    before = [each.cpu_seconds() for each in engines]
    began = time.monotonic()
    answers = asyncio.run(played(port, load, seed, contestant))
    return Run(
        contestant=contestant.name,
        load=name,
        seed=seed,
        began=began,
        wall=time.monotonic() - began,
        answers=answers,
        cpu={
            each.name: each.cpu_seconds() - spent
            for each, spent in zip(engines, before, strict=True)
        },
    )


def _add_attempts(runs: Sequence[Run], port: int, ready: float) -> None:
    """Ask the balancer what it has predicted and tried."""
    url = f"http://127.0.0.1:{port}/edgeserve/v1/requests"
    with urllib.request.urlopen(url, timeout=10) as said:
        records = {each["id"]: each for each in json.load(said)}
    for run in runs:
        for answer in run.answers:
            record = records.get(answer.id, {"attempts": []})
            run.attempts += [
                _attempt(each, answer.asked - ready, number)
                for number, each in enumerate(record["attempts"])
            ]


def _attempt(each: dict[str, Any], at: float, number: int) -> Attempt:
    return Attempt(
        at=at,
        node=each["node"],
        predicted=each["predicted"]["first_token_seconds"],
        first=each["actual"]["first_token_seconds"],
        outcome=each["outcome"] or "",
        number=number,
    )


def capacity(folder: Path, *, requests: bool) -> Capacity:
    """Measure one engine, by its processor time: other programs do not change that.

    `requests` takes half a minute and is 0 where it is not wanted.
    """
    with bare("capacity", folder) as engine:

        def spent(load: Load) -> tuple[float, list[Answer]]:
            before = engine.cpu_seconds()
            answers = asyncio.run(played(engine.port, load, 0))
            if failed := [each.error for each in answers if each.error]:
                raise RuntimeError(f"an engine alone failed: {failed[0]}")
            return engine.cpu_seconds() - before, answers

        async def mixture(ask: Ask, _: int) -> None:
            await in_pairs(ask, CAPACITY_REQUESTS)

        mixed = spent(mixture)[0] if requests else float("inf")
        read, answers = spent(_asking(1))
        write, _ = spent(_asking(1 + WRITTEN))  # the same prompt, now cached
        return Capacity(
            requests=CAPACITY_REQUESTS / mixed,
            prefill=answers[0].timings["prompt_n"] / read,
            decode=WRITTEN / write,
        )


def _asking(tokens: int) -> Load:
    async def load(ask: Ask, _: int) -> None:
        await ask([{"role": "user", "content": "one two three " * 150}], tokens)

    return load
