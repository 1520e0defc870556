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

from edgeserve.config.settings import LOOPBACK
from edgeserve.errors import NodeLost
from edgeserve.http.types import Origin, Upstream
from edgeserve.models.comparison import OWN_TEXT
from edgeserve.runtime.tasks import first_of
from edgeserve.security.tokens import new_secret
from edgeserve.wire import Launch
from node.engines.base import Engine, EngineSpec
from node.engines.output import ending
from node.engines.probe import Probe, Unwell
from node.engines.process import Process, free_port, running
from node.planning.tunings import Figures

log = logging.getLogger(__name__)

T = TypeVar("T")

Judge = Callable[[Figures], bool]
"""Whether figures are too poor for a second measurement."""

READY_SECONDS = 0.05
ROUNDS = 2

OPENING = 8
"""Prompt tokens of each of many streams: few, because their writing is measured."""


@dataclass(frozen=True)
class Work:
    """Tokens to read and to write in one request."""

    prompt: int = 64
    answer: int = 16

    def of_many(self, streams: int) -> int:
        """Return how many tokens each of `streams` streams writes."""
        return max(self.answer // streams, min(self.answer, ENOUGH))

    def within(self, context: int) -> Work:
        """Return as much of this work as a slot of `context` tokens holds."""
        answer = min(self.answer, context // 2)
        return Work(prompt=min(self.prompt, context - answer - 1), answer=answer)


ENOUGH = 32
"""Tokens of one stream among many, compared with which its prompt is short."""

MOST = Work(prompt=512, answer=128)


def work_for(figures: Figures, seconds: float) -> Work:
    """Return as much work as fits in a trial of `seconds`. Pure."""
    share = seconds / 3 / ROUNDS
    prompt, answer = figures.prefill * share, figures.decode * share
    least = Work()
    return Work(
        prompt=int(min(max(prompt, least.prompt), MOST.prompt)),
        answer=int(min(max(answer, least.answer), MOST.answer)),
    )


class TrialFailed(Exception):
    """An engine did not run, or did not answer; the message says how."""


@dataclass(frozen=True)
class Bench:
    """Runs trials, one after another."""

    engine: Engine
    spec: EngineSpec
    upstream: Upstream
    state_dir: Path
    clock: Callable[[], float] = time.monotonic

    async def figures(
        self, launch: Launch, work: Work, seconds: float, hopeless: Judge
    ) -> Figures:
        """Start the engine with `launch`, measure it, and end it.

        The better of two rounds counts: other processes only ever slow a round. One
        round if its figures are `hopeless`. Raises TrialFailed where that takes longer
        than `seconds`, or fails.
        """
        port, key = free_port(), new_secret("tune")
        spec = replace(self.spec, launch=launch)
        command = self.engine.command(spec, port=port, api_key=key)
        requests = _Requests(Probe(self.upstream, Origin(LOOPBACK, port), key))
        try:
            async with (
                asyncio.timeout(seconds),
                running(command, self.state_dir) as process,
            ):
                return await first_of(
                    _ended(process), self._measured(requests, launch, work, hopeless)
                )
        except TimeoutError:
            raise TrialFailed(f"took more than {seconds:.0f} s") from None
        except (OSError, Unwell, NodeLost) as error:
            raise TrialFailed(str(error)) from error

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
    raise TrialFailed(ending(status, process.output.lines))


async def _at_once(each: Iterable[Coroutine[Any, Any, _Timings]]) -> list[_Timings]:
    """Run all; raises the first error, after the others have ended."""
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
    """Requests to an engine under trial. `prose` is our text in its tokens."""

    probe: Probe
    prose: list[int] = field(default_factory=list)

    async def ready(self) -> None:
        """Wait until it has loaded, and do its first, slower request."""
        while not await self.probe.healthy():  # noqa: ASYNC110 - another process has no event
            await asyncio.sleep(READY_SECONDS)
        content = OWN_TEXT.read_text(encoding="utf-8")
        tokenized = await self._ask("/tokenize", {"content": content}, _Tokenized)
        self.prose = tokenized.tokens
        await self.write(OPENING, 2, seed=0)

    async def write(self, prompt: int, answer: int, seed: int) -> _Timings:
        """Have `prompt` tokens of prose read, and `answer` tokens written.

        Sampled, as clients do: greedy answers repeat themselves, which makes
        speculation look better than it is. Each seed reads another part of the text.
        """
        start = seed * 997 % len(self.prose)
        request = {
            "prompt": (self.prose[start:] + self.prose)[:prompt],
            "n_predict": answer,
            "ignore_eos": True,
            "cache_prompt": False,
            "temperature": 0.8,
            "seed": seed + 1,
        }
        return (await self._ask("/completion", request, _Written)).timings

    async def _ask(self, path: str, request: dict[str, Any], shape: type[T]) -> T:
        body = msgspec.json.encode(request)
        status, content = await self.probe.ask("POST", path, body)
        try:
            return msgspec.json.decode(content, type=shape)
        except msgspec.DecodeError:
            text = content[:200].decode(errors="replace")
            raise TrialFailed(f"answered {status}: {text}") from None
