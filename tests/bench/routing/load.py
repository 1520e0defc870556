"""Benchmark loads: a burst that shares a prompt, and conversations."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.bench.asking import PATH, Answer, Messages, ask, session

MODEL = "small"
WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]
ANSWER = 16


@dataclass
class Seen:
    """Seconds to the first word and to the last, of every request that was answered."""

    first: list[float] = field(default_factory=list[float])
    whole: list[float] = field(default_factory=list[float])
    errors: int = 0

    def take(self, answer: Answer) -> None:
        """Count one answer."""
        if answer.first is not None:
            self.first.append(answer.first)
        if answer.error or answer.whole is None:
            self.errors += 1
        else:
            self.whole.append(answer.whole)


Ask = Callable[[Messages], Awaitable[str]]
Load = Callable[[Ask], Awaitable[None]]


def text(dice: random.Random, words: int) -> str:
    """Return so many words; the fake engines count each as a token."""
    return " ".join(dice.choice(WORDS) for _ in range(words))


async def burst(say: Ask) -> None:
    """Send 40 questions, 8 at a time, with one system prompt."""
    dice = random.Random(1)  # noqa: S311 - a benchmark
    system = {"role": "system", "content": text(dice, 400)}
    questions = [{"role": "user", "content": text(dice, 20)} for _ in range(40)]
    gate = asyncio.Semaphore(8)

    async def one(question: dict[str, str]) -> None:
        async with gate:
            await say([system, question])

    await asyncio.gather(*map(one, questions))


async def chats(say: Ask) -> None:
    """Send 24 conversations of five turns that begin one after the other."""
    dice = random.Random(2)  # noqa: S311 - a benchmark
    systems = [text(dice, words) for words in (150, 300, 450)]
    async with asyncio.TaskGroup() as group:
        for number in range(24):
            own = random.Random(number)  # noqa: S311 - a benchmark
            group.create_task(_conversation(say, systems[number % 3], own))
            await asyncio.sleep(dice.expovariate(1 / 0.35))


async def _conversation(say: Ask, system: str, dice: random.Random) -> None:
    messages = [{"role": "system", "content": system}]
    for _ in range(5):
        messages.append({"role": "user", "content": text(dice, dice.randint(10, 120))})
        answer = await say(messages)
        messages.append({"role": "assistant", "content": answer})
        await asyncio.sleep(dice.expovariate(1 / 1.5))


LOADS: dict[str, Load] = {"burst": burst, "chats": chats}


async def run(port: int, load: Load) -> tuple[Seen, float]:
    """Run a load against a port; return the latencies and the total time."""
    seen = Seen()
    url = f"http://127.0.0.1:{port}{PATH}"
    async with session() as client:

        async def asked(messages: Messages) -> str:
            body = {"model": MODEL, "messages": messages, "max_tokens": ANSWER}
            answer = await ask(client, url, body)
            seen.take(answer)
            return answer.text

        begin = time.monotonic()
        await load(asked)
        return seen, time.monotonic() - begin
