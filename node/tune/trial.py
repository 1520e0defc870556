"""Trial: start an engine with one setting, and measure it by real requests."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edgeserve.auth import new_secret
from edgeserve.config.settings import LOOPBACK
from edgeserve.errors import NodeLost
from edgeserve.http.types import Origin, Upstream
from edgeserve.models.comparison import OWN_TEXT
from edgeserve.runtime.tasks import first_of
from edgeserve.wire import Launch
from node.engines.base import Engine, EngineSpec
from node.engines.output import ending
from node.engines.probe import Probe, Unwell
from node.engines.process import Process, free_port, running
from node.planning.tunings import Figures

log = logging.getLogger(__name__)

Said = TypeVar("Said")

Judge = Callable[[Figures], bool]
"""Whether figures are so poor that measuring again is a waste of time."""

READY_SECONDS = 0.05
ROUNDS = 2

OPENING = 8
"""Tokens of the prompts of many streams: short, for their writing is measured."""


@dataclass(frozen=True)
class Work:
    """Tokens to read and to write in one request."""

    prompt: int = 64
    answer: int = 16

    def of_many(self, streams: int) -> int:
        """Return how many tokens each of so many streams writes."""
        return max(self.answer // streams, min(self.answer, ENOUGH))

    def within(self, context: int) -> Work:
        """Return what of this a slot of so many tokens can hold."""
        answer = min(self.answer, context // 2)
        return Work(prompt=min(self.prompt, context - answer - 1), answer=answer)


ENOUGH = 32
"""Tokens of one stream among many, beside which its opening weighs little."""

MOST = Work(prompt=512, answer=128)


def work_for(figures: Figures, seconds: float) -> Work:
    """Return as much work as a trial of so many seconds has time for. Pure."""
    share = seconds / 3 / ROUNDS
    prompt, answer = figures.prefill * share, figures.decode * share
    least = Work()
    return Work(
        prompt=int(min(max(prompt, least.prompt), MOST.prompt)),
        answer=int(min(max(answer, least.answer), MOST.answer)),
    )


class Failed(Exception):
    """An engine did not run, or did not answer; the sentence says how."""


@dataclass(frozen=True)
class Bench:
    """Where engines are tried, one after another."""

    engine: Engine
    spec: EngineSpec
    upstream: Upstream
    state_dir: Path
    clock: Callable[[], float] = time.monotonic

    async def figures(
        self, launch: Launch, work: Work, seconds: float, hopeless: Judge
    ) -> Figures:
        """Start the engine with `launch`, measure it, and end it.

        Two rounds, the better of which counts: what else runs here only ever slows
        them. One where its figures are `hopeless`. Raises Failed where that takes
        longer than `seconds`, or does not work.
        """
        port, key = free_port(), new_secret("tune")
        spec = replace(self.spec, launch=launch)
        command = self.engine.command(spec, port=port, api_key=key)
        requests = _Requests(self.upstream, Origin(LOOPBACK, port), key)
        try:
            async with (
                asyncio.timeout(seconds),
                running(command, self.state_dir) as process,
            ):
                return await first_of(
                    _ended(process), self._measured(requests, launch, work, hopeless)
                )
        except TimeoutError:
            raise Failed(f"took more than {seconds:.0f} s") from None
        except (OSError, Unwell, NodeLost) as error:
            raise Failed(str(error)) from error

    async def _measured(
        self, requests: _Requests, launch: Launch, work: Work, hopeless: Judge
    ) -> Figures:
        await requests.ready()
        work = work.within(launch.context)
        first = await self._round(requests, launch, work)
        if hopeless(first):
            return first
        second = await self._round(requests, launch, work)
        return Figures(
            prefill=max(first.prefill, second.prefill),
            decode=max(first.decode, second.decode),
            aggregate=max(first.aggregate, second.aggregate),
        )

    async def _round(self, requests: _Requests, launch: Launch, work: Work) -> Figures:
        alone = await requests.write(work.prompt, work.answer, seed=0)
        answer = work.of_many(launch.slots)
        began = self.clock()
        many = await _at_once(
            requests.write(OPENING, answer, seed=n + 1) for n in range(launch.slots)
        )
        seconds = self.clock() - began
        return Figures(
            prefill=alone.prompt_n / alone.prompt_ms * 1000,
            decode=alone.predicted_n / alone.predicted_ms * 1000,
            aggregate=sum(each.predicted_n for each in many) / seconds,
        )


async def _ended(process: Process) -> Figures:
    status = await process.ended()
    raise Failed(ending(status, process.output.lines))


async def _at_once(each: Iterable[Coroutine[Any, Any, _Timings]]) -> list[_Timings]:
    """Run all; raises what the first to fail raises, when the others have ended."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in each]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    return [task.result() for task in tasks]


class _Timings(msgspec.Struct):
    prompt_n: int
    prompt_ms: float
    predicted_n: int
    predicted_ms: float


class _Written(msgspec.Struct):
    timings: _Timings


class _Tokenized(msgspec.Struct):
    tokens: list[int]


@dataclass
class _Requests:
    """What is asked of an engine under trial. `prose` is our text in its tokens."""

    upstream: Upstream
    origin: Origin
    api_key: str
    prose: list[int] = field(default_factory=list)

    async def ready(self) -> None:
        """Wait until it has loaded and has done its first, slower work."""
        probe = Probe(self.upstream, self.origin, self.api_key)
        while not await probe.healthy():  # noqa: ASYNC110 - another process has no event
            await asyncio.sleep(READY_SECONDS)
        content = OWN_TEXT.read_text(encoding="utf-8")
        tokenized = await self._ask("/tokenize", {"content": content}, _Tokenized)
        self.prose = tokenized.tokens
        await self.write(OPENING, 2, seed=0)

    async def write(self, prompt: int, answer: int, seed: int) -> _Timings:
        """Have so many tokens of prose read, and so many written.

        Sampled, as people do: greedy answers repeat themselves, which flatters guesses.
        Another seed has another part of the text read.
        """
        start = seed * 997 % len(self.prose)
        asked = {
            "prompt": (self.prose[start:] + self.prose)[:prompt],
            "n_predict": answer,
            "ignore_eos": True,
            "cache_prompt": False,
            "temperature": 0.8,
            "seed": seed + 1,
        }
        return (await self._ask("/completion", asked, _Written)).timings

    async def _ask(self, path: str, asked: dict[str, Any], wanted: type[Said]) -> Said:
        headers = {
            "authorization": f"Bearer {self.api_key}",
            "content-type": "application/json",
        }
        body = msgspec.json.encode(asked)
        async with self.upstream.ask(self.origin, "POST", path, headers, body) as reply:
            said = await reply.read()
        try:
            return msgspec.json.decode(said, type=wanted)
        except msgspec.DecodeError:
            told = said[:200].decode(errors="replace")
            raise Failed(f"answered {reply.status}: {told}") from None
