"""Real engines die and freeze under load, in the midst of their answers.

One line of counts is printed: how many answers were asked for, came whole, went on at
the other engine, or failed.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from tests.endpoint.conftest import MODEL, running_process

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

TOKENS = 60
STREAMS = 4
ROUNDS = 4
"""More, where all answers had ended by the time at which their engine died."""

BOUND_SECONDS = 120.0
QUESTIONS = (
    "Count from one to one hundred in words.",
    "Tell a long story about a lighthouse.",
    "Explain how bread is baked, step by step.",
    "List the planets and say a sentence about each.",
)


@dataclass
class Answer:
    """One stream as its client got it."""

    body: bytes = b""
    error: str = ""
    id: str = ""
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def events(self) -> list[Any]:
        lines = [each[6:] for each in self.body.splitlines() if each[:6] == b"data: "]
        return [json.loads(each) for each in lines if each != b"[DONE]"]

    @property
    def text(self) -> str:
        deltas = [
            choice["delta"]
            for each in self.events
            for choice in each.get("choices", [])
        ]
        return "".join(delta.get("content") or "" for delta in deltas)

    @property
    def wrong(self) -> str:
        """What is wrong with it, by its own account."""
        told = [each for each in self.events if "error" in each]
        roles = sum(
            "role" in choice["delta"]
            for each in self.events
            for choice in each.get("choices", [])
        )
        usage = self.events[-1].get("usage") if self.events else None
        counted = usage and usage["completion_tokens"]
        checks = {
            self.error: bool(self.error),
            f"an error event {told}": bool(told),
            "no single [DONE]": self.body.count(b"data: [DONE]") != 1,
            f"{roles} roles": roles != 1,
            f"{counted} tokens": counted != TOKENS,
            "several ids": len({each["id"] for each in self.events}) != 1,
        }
        return "; ".join(what for what, holds in checks.items() if holds)


@dataclass
class Pair:
    """Two nodes, their engines' process ids, and the balancer in front of them."""

    url: str
    nodes: dict[str, psutil.Process]

    def engine(self, node: str) -> psutil.Process:
        """Return the process of a node's engine: the one that holds the model."""
        found = self.nodes[node].children(recursive=True)
        return max(found, key=lambda each: each.memory_info().rss)


@pytest.fixture(scope="module")
def pair(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Pair]:
    home = tmp_path_factory.mktemp("pair")
    with ExitStack() as stack:
        nodes = {
            name: stack.enter_context(a_node(name, smollm2, home))
            for name in ("left", "right")
        }
        flags = [flag for url, _ in nodes.values() for flag in ("--node", url)]
        url, _ = stack.enter_context(
            running_process(
                "balancer", "--no-discover", "--no-calibrate", *flags, home=home
            )
        )
        yield Pair(url, {name: psutil.Process(pid) for name, (_, pid) in nodes.items()})


@contextmanager
def a_node(name: str, model: Path, home: Path) -> Generator[tuple[str, int]]:
    flags = ("--slots", "4", "--context", "1024", "--threads", "1", "--no-advertise")
    with running_process(
        "node",
        *("--engine", "bundled", "--model", str(model), "--name", name, *flags),
        home=home / name,
    ) as started:
        yield started


async def asked(session: aiohttp.ClientSession, question: str, answer: Answer) -> None:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": question}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "temperature": 0,
    }
    try:
        async with session.post("/v1/chat/completions", json=body) as response:
            answer.id = response.headers["x-edgeserve-request-id"]
            async for piece in response.content.iter_any():
                answer.body += piece
                if answer.text:
                    answer.begun.set()
    except (aiohttp.ClientError, OSError) as error:
        answer.error = repr(error)
    finally:
        answer.begun.set()


async def all_asked(
    session: aiohttp.ClientSession,
) -> AsyncGenerator[list[Answer]]:
    """Ask everything at once; yields when every answer has begun, then once more."""
    answers = [Answer() for _ in range(STREAMS)]
    tasks = [
        asyncio.create_task(asked(session, question, answer))
        for question, answer in zip(QUESTIONS, answers, strict=True)
    ]
    async with asyncio.timeout(BOUND_SECONDS):
        for each in answers:
            await each.begun.wait()
        yield answers
        await asyncio.gather(*tasks)
    yield answers


async def both_serve(session: aiohttp.ClientSession) -> None:
    deadline = time.monotonic() + BOUND_SECONDS
    while time.monotonic() < deadline:
        async with session.get("/health") as health:
            if (await health.json())["engines"] == 2:
                return
        await asyncio.sleep(0.1)
    pytest.fail("the engines do not serve")


async def attempts(
    session: aiohttp.ClientSession, answers: Sequence[Answer]
) -> list[list[dict[str, Any]]]:
    """What the balancer knows of each answer."""
    known = []
    for each in answers:
        async with session.get(f"/edgeserve/v1/requests/{each.id}") as explained:
            known.append((await explained.json())["attempts"])
    return known


async def struck(
    pair: Pair, session: aiohttp.ClientSession, deed: signal.Signals
) -> tuple[list[Answer], int]:
    """Ask everything and do the deed to the busiest engine.

    Returns the answers, and how many went on elsewhere.
    """
    rounds = all_asked(session)
    answers = await anext(rounds)
    at_work = Counter(
        tries[-1]["node"]
        for tries in await attempts(session, answers)
        if tries[-1]["outcome"] is None
    )
    victim = pair.engine(max(pair.nodes, key=at_work.__getitem__))
    victim.send_signal(deed)
    try:
        await anext(rounds)
        tried = await attempts(session, answers)
    finally:
        # Its node may have replaced it by now.
        with suppress(psutil.NoSuchProcess):
            victim.send_signal(signal.SIGCONT)
    await rounds.aclose()
    return answers, sum(any(each["resumes"] for each in tries) for tries in tried)


@pytest.mark.parametrize("deed", [signal.SIGKILL, signal.SIGSTOP])
async def test_no_stream_is_lost_with_its_engine(
    pair: Pair, deed: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    async with aiohttp.ClientSession(pair.url) as session:
        await both_serve(session)
        undisturbed = [each async for each in all_asked(session)][-1]
        answers, went_on = await struck(pair, session, deed)
        for _ in range(ROUNDS):
            if went_on or any(each.wrong for each in answers):
                break
            await both_serve(session)
            answers, went_on = await struck(pair, session, deed)

    wrong = [each.wrong for each in answers if each.wrong]
    same = [
        one.text == other.text for one, other in zip(answers, undisturbed, strict=True)
    ]
    with capsys.disabled():
        print(
            f"\n{deed.name}: {STREAMS} asked, {STREAMS - len(wrong)} whole, {went_on}"
            f" went on elsewhere, {len(wrong)} failed, {sum(same)} as if undisturbed"
        )
    assert [each.wrong for each in undisturbed if each.wrong] == []
    assert wrong == []
    assert went_on >= 1
