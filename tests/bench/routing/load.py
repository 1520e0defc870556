"""Benchmark loads: a burst that shares a prompt, and conversations."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp

MODEL = "small"
WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]
ANSWER = 16
LONGEST = 300.0
Messages = list[dict[str, str]]


@dataclass
class Seen:
    """Seconds to the first word and to the last, of every request that was answered."""

    first: list[float] = field(default_factory=list[float])
    whole: list[float] = field(default_factory=list[float])
    errors: int = 0


Ask = Callable[[Messages], Awaitable[str]]
Load = Callable[[Ask], Awaitable[None]]


def text(dice: random.Random, words: int) -> str:
    """Return so many words; the fake engines count each as a token."""
    return " ".join(dice.choice(WORDS) for _ in range(words))


async def burst(ask: Ask) -> None:
    """Send 40 questions, 8 at a time, with one system prompt."""
    dice = random.Random(1)  # noqa: S311 - a benchmark
    system = {"role": "system", "content": text(dice, 400)}
    questions = [{"role": "user", "content": text(dice, 20)} for _ in range(40)]
    gate = asyncio.Semaphore(8)

    async def one(question: dict[str, str]) -> None:
        async with gate:
            await ask([system, question])

    await asyncio.gather(*map(one, questions))


async def chats(ask: Ask) -> None:
    """Send 24 conversations of five turns that begin one after the other."""
    dice = random.Random(2)  # noqa: S311 - a benchmark
    systems = [text(dice, words) for words in (150, 300, 450)]
    async with asyncio.TaskGroup() as group:
        for number in range(24):
            own = random.Random(number)  # noqa: S311 - a benchmark
            group.create_task(_conversation(ask, systems[number % 3], own))
            await asyncio.sleep(dice.expovariate(1 / 0.35))


async def _conversation(ask: Ask, system: str, dice: random.Random) -> None:
    messages = [{"role": "system", "content": system}]
    for _ in range(5):
        messages.append({"role": "user", "content": text(dice, dice.randint(10, 120))})
        answer = await ask(messages)
        messages.append({"role": "assistant", "content": answer})
        await asyncio.sleep(dice.expovariate(1 / 1.5))


LOADS: dict[str, Load] = {"burst": burst, "chats": chats}


async def run(port: int, load: Load) -> tuple[Seen, float]:
    """Run a load against a port; return the latencies and the total time."""
    seen = Seen()
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=LONGEST)
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def ask(messages: Messages) -> str:
            return await _asked(session, url, messages, seen)

        begin = time.monotonic()
        await load(ask)
        return seen, time.monotonic() - begin


async def _asked(
    session: aiohttp.ClientSession, url: str, messages: Messages, seen: Seen
) -> str:
    body = {"model": MODEL, "messages": messages, "max_tokens": ANSWER, "stream": True}
    begin = time.monotonic()
    words: list[str] = []
    try:
        async with session.post(url, json=body) as answer:
            answer.raise_for_status()
            async for line in answer.content:
                word = _word(line)
                if word:
                    if not words:
                        seen.first.append(time.monotonic() - begin)
                    words.append(word)
    except (aiohttp.ClientError, TimeoutError):
        seen.errors += 1
    else:
        seen.whole.append(time.monotonic() - begin)
    return "".join(words)


def _word(line: bytes) -> str:
    if not line.startswith(b"data: {"):
        return ""
    choices = json.loads(line[6:]).get("choices") or [{}]
    return choices[0].get("delta", {}).get("content") or ""
