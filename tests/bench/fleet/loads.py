"""Loads of the benchmark: chats, bursts, and arrivals at random times.

Every text and every time comes from a seed, so that all contestants get the same.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from tests.bench.asking import Answer, Messages

Ask = Callable[[Messages, int], Awaitable[Answer]]
"""Ask with a budget of tokens, all of which are written."""

TEXT = """
the river runs past old stone houses where people bake bread and talk about weather
music work and evening light while a small boat carries letters salt apples and news
from one village to another every morning before the market opens its doors
"""
WORDS = TEXT.split()

CHATS, TURNS = 12, (3, 4)
BURST = 24
PHASE_SECONDS = 20.0
ARRIVALS = (50, 70, 90, 120)
"""In percent of what the engines can do together."""

QUESTIONS = 0.4
"""Share of arrivals that are a short question rather than a turn of a conversation."""

AT_ONCE, LONGEST_CHAT = 6, 4
"""Conversations that go on side by side, and their turns."""


def text(dice: random.Random, words: int) -> str:
    return " ".join(dice.choice(WORDS) for _ in range(words))


def said(role: str, words: str) -> dict[str, str]:
    return {"role": role, "content": words}


@dataclass
class Conversation:
    """What was said so far; `turn` adds a question and its answer."""

    dice: random.Random
    messages: Messages
    turns: int = 0

    async def turn(self, ask: Ask, words: tuple[int, int], tokens: int) -> None:
        self.turns += 1
        question = text(self.dice, self.dice.randint(*words))
        self.messages.append(said("user", question))
        answer = await ask(self.messages, tokens)
        self.messages.append(said("assistant", answer.text))


def dice_of(load: str, seed: int, number: int = 0) -> random.Random:
    return random.Random(f"{load} {seed} {number}")  # noqa: S311 - a benchmark


async def chats(ask: Ask, seed: int) -> None:
    """Talk in twelve conversations at once, twice as many as there are slots."""
    system = said("system", text(dice_of("chats", seed), 110))

    async def one(number: int) -> None:
        dice = dice_of("chats", seed, number + 1)
        chat = Conversation(dice, [system])
        await asyncio.sleep(dice.uniform(0, 1))
        for _ in range(dice.randint(*TURNS)):
            await chat.turn(ask, (25, 50), dice.randint(12, 18))
            await asyncio.sleep(dice.uniform(0.5, 1.5))

    await asyncio.gather(*map(one, range(CHATS)))


def burst(name: str) -> Callable[[Ask, int], Awaitable[None]]:
    """Ask 24 questions at once; the bursts of a seed share one system prompt."""

    async def load(ask: Ask, seed: int) -> None:
        system = said("system", text(dice_of("burst", seed), 210))
        dice = dice_of(name, seed)
        questions = [text(dice, dice.randint(6, 12)) for _ in range(BURST)]
        await asyncio.gather(*(ask([system, said("user", q)], 8) for q in questions))

    return load


@dataclass(frozen=True)
class Arrival:
    """A request at `at` seconds; in `chat`, or a question alone (None)."""

    at: float
    chat: int | None
    words: int
    tokens: int


def arrivals(dice: random.Random, rate: float, seconds: float) -> Iterator[Arrival]:
    """Yield Poisson arrivals at `rate` per second."""
    at = dice.expovariate(rate)
    while at < seconds:
        if dice.random() < QUESTIONS:
            yield Arrival(at, None, dice.randint(10, 40), dice.randint(6, 12))
        else:
            chat = dice.randrange(AT_ONCE)
            yield Arrival(at, chat, dice.randint(30, 80), dice.randint(10, 20))
        at += dice.expovariate(rate)


@dataclass
class Mixture:
    """Conversations side by side, and questions beside them."""

    seed: int
    system: dict[str, str] = field(init=False)
    _chats: dict[int, Conversation] = field(default_factory=dict[int, Conversation])
    _locks: dict[int, asyncio.Lock] = field(default_factory=dict[int, asyncio.Lock])
    _begun: int = 0

    def __post_init__(self) -> None:
        self.system = said("system", text(dice_of("mixture", self.seed), 60))

    async def serve(self, ask: Ask, arrival: Arrival) -> None:
        """Ask what has arrived; a turn waits for the answer before it."""
        words = (arrival.words, arrival.words)
        if arrival.chat is None:
            await self._new().turn(ask, words, arrival.tokens)
            return
        async with self._locks.setdefault(arrival.chat, asyncio.Lock()):
            chat = self._chats.get(arrival.chat)
            if chat is None or chat.turns >= LONGEST_CHAT:
                chat = self._chats[arrival.chat] = self._new()
            await chat.turn(ask, words, arrival.tokens)

    def _new(self) -> Conversation:
        self._begun += 1
        dice = dice_of("mixture", self.seed, self._begun)
        return Conversation(dice, [self.system])


def poisson(percent: int, capacity: float) -> Callable[[Ask, int], Awaitable[None]]:
    """Let questions and turns arrive at a share of `capacity`, in requests/s."""

    async def load(ask: Ask, seed: int) -> None:
        dice = dice_of(f"poisson {percent}", seed)
        mixture = Mixture(100 * seed + percent)
        start = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for each in arrivals(dice, capacity * percent / 100, PHASE_SECONDS):
                now = asyncio.get_running_loop().time()
                await asyncio.sleep(max(0.0, start + each.at - now))
                group.create_task(mixture.serve(ask, each))

    return load


async def in_pairs(ask: Ask, count: int) -> None:
    """Ask the first `count` of the mixture as they arrive, always two at a time.

    One engine cannot hold all conversations, so that mostly the system prompt is found
    cached: who finds more can carry more than the capacity that this measures.
    """
    mixture = Mixture(0)
    waiting = islice(arrivals(dice_of("capacity", 0), 1.0, float("inf")), count)

    async def one() -> None:
        for arrival in waiting:
            await mixture.serve(ask, arrival)

    await asyncio.gather(one(), one())
