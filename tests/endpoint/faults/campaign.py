"""A load that does not pause, and engines that are struck in the midst of it."""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import median

import aiohttp

from tests.endpoint.faults.answers import Answer, Question, asked
from tests.endpoint.faults.judge import Verdict, judged
from tests.endpoint.faults.pair import BOUND_SECONDS, LOOK_SECONDS, NODES, Pair

CLIENTS = 10
"""Two more than both engines have slots."""

IN_THE_MIDST = 3
"""Streams that an engine should be writing when it is struck."""

PATIENCE_SECONDS = 12.0
"""How long to wait for so many: an engine that comes back gets one stream at first."""


@dataclass
class Load:
    """Clients that ask one question after the other."""

    session: aiohttp.ClientSession
    questions: Sequence[Question]
    answers: list[Answer] = field(default_factory=list[Answer])
    stopped: bool = False

    def __post_init__(self) -> None:
        self._next = itertools.cycle(self.questions)

    def writing(self, node: str) -> int:
        """How many streams a node is in the midst of."""
        return sum(
            each.node == node and each.begun.is_set() and not each.over
            for each in self.answers
        )

    @property
    def busiest(self) -> str:
        """The node that is in the midst of most."""
        return max(NODES, key=self.writing)

    @property
    def alive(self) -> list[Answer]:
        """The answers under way."""
        return [each for each in self.answers if not each.over]

    @property
    def hit(self) -> int:
        """How many answers an engine has broken off in the midst of."""
        return sum(each.breaks > 0 for each in self.answers)

    async def client(self) -> None:
        """Ask until stopped."""
        while not self.stopped:
            answer = Answer(next(self._next))
            self.answers.append(answer)
            await asked(self.session, answer)


@asynccontextmanager
async def loaded(
    session: aiohttp.ClientSession, questions: Sequence[Question]
) -> AsyncGenerator[Load]:
    """Ask for the length of the block; at its end every answer is waited for."""
    load = Load(session, questions)
    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(load.client())
        try:
            yield load
        finally:
            load.stopped = True


async def undisturbed(
    session: aiohttp.ClientSession, questions: Sequence[Question]
) -> dict[Question, str]:
    """What each question is answered while nothing goes wrong."""
    free = asyncio.Semaphore(CLIENTS)

    async def one(question: Question) -> Answer:
        async with free:
            return await asked(session, Answer(question))

    answers = await asyncio.gather(*map(one, questions))
    assert [each.wrong for each in answers if each.wrong] == []
    return {each.question: each.text for each in answers}


@dataclass(frozen=True)
class Struck:
    """What a campaign came to."""

    deed: signal.Signals
    faults: int
    starts: int
    """How often engines were started in its course: more than faults, and an engine
    that was merely slow was taken for dead."""
    seconds: float
    answers: list[Answer]
    verdicts: dict[int, Verdict]
    """Of the resumed answers that are not as if undisturbed, by their number."""
    others: int
    """Untouched answers that are not as if undisturbed either."""

    @property
    def hit(self) -> list[Answer]:
        """Those whose engine broke off in their midst."""
        return [each for each in self.answers if each.breaks]

    @property
    def moved(self) -> list[Answer]:
        """Those that were asked again before anything had come of them."""
        return [e for e in self.answers if len(e.attempts) > 1 and not e.breaks]

    @property
    def failed(self) -> list[Answer]:
        """Those that their clients did not get as they should."""
        return [each for each in self.answers if each.wrong]

    @property
    def torn(self) -> list[Verdict]:
        """Texts that lost or repeat something."""
        return [each for each in self.verdicts.values() if each.at]

    def row(self) -> dict[str, str]:
        """The counts, by name."""
        hit, moved = self.hit, self.moved
        differing, torn = len(self.verdicts), len(self.torn)
        whole = sum(not each.wrong for each in hit)
        untouched = len(self.answers) - len(hit)
        gaps = sorted(each.gap for each in hit if each.question.streams) or [0.0]
        widest = max((v.widest for v in self.verdicts.values()), default=0.0)
        return {
            "signal": self.deed.name,
            "faults": f"{self.faults} in {self.seconds:.0f} s",
            "engines started again": str(self.starts),
            "requests": str(len(self.answers)),
            "asked again before the first byte": str(len(moved)),
            "… of them failed": str(sum(bool(each.wrong) for each in moved)),
            "broken off in their midst": str(len(hit)),
            "… of them completed": str(whole),
            "failed in all": str(len(self.failed)),
            "resumed texts as if undisturbed": str(whole - differing),
            "… that part at near ties only": str(differing - torn),
            "… with text lost or repeated": str(torn),
            "untouched texts": str(untouched),
            "… of them as if undisturbed": str(untouched - self.others),
            "widest tie, nats": f"{widest:.2f}",
            "longest pause of a broken one, p50": f"{median(gaps):.1f} s",
            "… and at most": f"{gaps[-1]:.1f} s",
        }


async def struck(
    pair: Pair,
    session: aiohttp.ClientSession,
    deed: signal.Signals,
    expected: dict[Question, str],
    *,
    hits: int,
    seconds: float,
) -> Struck:
    """Strike the busier engine, again and again, until so many answers were hit.

    A request that met one fault ends before the next fault.
    """
    began = time.monotonic()
    faults, before = 0, await pair.starts(session)
    async with loaded(session, list(expected)) as load:
        while load.hit < hits and time.monotonic() - began < seconds:
            name = await _in_the_midst(load)
            epoch = await pair.epoch(session, name)
            alive = load.alive
            pair.strike(name, deed)
            faults += 1
            await pair.serve(session, **{name: epoch + 1})
            await _over(alive)
            print(f"{deed.name} {faults}: {load.hit} hit", file=sys.stderr)
    took = time.monotonic() - began
    verdicts = await _verdicts(session, load.answers, expected)
    others = sum(
        not each.breaks and each.text != expected[each.question]
        for each in load.answers
    )
    starts = await pair.starts(session) - before
    return Struck(
        deed=deed,
        faults=faults,
        starts=starts,
        seconds=took,
        answers=load.answers,
        verdicts=verdicts,
        others=others,
    )


async def _verdicts(
    session: aiohttp.ClientSession,
    answers: Sequence[Answer],
    expected: dict[Question, str],
) -> dict[int, Verdict]:
    """Judge every answer that was broken off, is whole, and not what was expected."""
    free = asyncio.Semaphore(CLIENTS)

    async def one(answer: Answer) -> Verdict:
        async with free:
            return await judged(session, answer, expected[answer.question])

    numbers = [
        number
        for number, each in enumerate(answers)
        if each.breaks and not each.wrong and each.text != expected[each.question]
    ]
    verdicts = await asyncio.gather(*(one(answers[number]) for number in numbers))
    return dict(zip(numbers, verdicts, strict=True))


async def _in_the_midst(load: Load) -> str:
    """Wait until an engine is in the midst of several streams; returns its node."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        if load.writing(load.busiest) >= IN_THE_MIDST:
            break
        await asyncio.sleep(LOOK_SECONDS / 2)
    return load.busiest


async def _over(answers: Sequence[Answer]) -> None:
    until = time.monotonic() + BOUND_SECONDS
    while not all(each.over for each in answers) and time.monotonic() < until:
        await asyncio.sleep(LOOK_SECONDS)


def table(campaigns: Sequence[Struck]) -> str:
    """Render the counts side by side, as Markdown."""
    rows = [each.row() for each in campaigns]
    lines = [
        f"| {name} | " + " | ".join(row[name] for row in rows) + " |"
        for name in rows[0]
    ]
    lines.insert(1, "|---" * (len(rows) + 1) + "|")
    return "\n".join(lines)
