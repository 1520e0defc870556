"""Simulated traffic: conversations of several turns that share system prompts."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import count

from balancer.dialects.prompt import EMPTY, FRAME_BYTES, Prompt, block_bytes
from balancer.telemetry.trace import LEAST_RATIO, MOST_RATIO, Call, marks, with_replies


@dataclass(frozen=True, slots=True, kw_only=True)
class Chats:
    """The kind of conversations. Tokens and seconds; means of skewed distributions."""

    systems: int = 4
    system_tokens: tuple[int, int] = (300, 1200)
    turns: float = 5.0
    question_tokens: float = 60.0
    answer_tokens: float = 120.0
    thought_tokens: float = 0.0
    """Reasoning before each answer, which clients do not send back."""
    pause: float = 25.0
    clients: int = 12
    closed: bool = True
    """Whether the next question waits for the answer, as with people."""
    context: int = 8192


@dataclass(slots=True)
class _Talk:
    """One conversation as it grows."""

    session: str
    client: str
    ratio: float
    prompt: Prompt = EMPTY
    answer: int = 0
    """Tokens of the last answer, without its reasoning."""


class Writer:
    """Makes conversations; the same seed gives the same ones."""

    def __init__(self, chats: Chats, seed: int) -> None:
        self.chats = chats
        self.chance = random.Random(seed)  # noqa: S311 - a simulation
        self.ids = count()
        low, high = chats.system_tokens
        self.systems = [
            self._say(EMPTY, self.chance.randint(low, high), 0.25)
            for _ in range(chats.systems)
        ]

    def conversation(self, number: int, at: float) -> list[Call]:
        """Return all turns of one conversation."""
        chance, chats = self.chance, self.chats
        popularity = [1 / (i + 1) for i in range(chats.systems)]
        [system] = chance.choices(self.systems, popularity)
        talk = _Talk(
            f"s{number}",
            f"c{chance.randrange(chats.clients)}",
            0.25 * chance.lognormvariate(0, 0.08),
            system,
        )
        more = chance.expovariate(1 / max(0.01, chats.turns - 1))
        calls: list[Call] = []
        for _ in range(min(30, 1 + int(more + 0.5))):
            call = self._turn(talk, calls[-1] if calls else None, at)
            if call.prompt_tokens + call.answer_tokens > chats.context:
                break
            calls.append(call)
            at += self._pause()
        return calls

    def _pause(self) -> float:
        return 2.0 + self.chance.lognormvariate(0, 0.8) * (self.chats.pause - 2)

    def _turn(self, talk: _Talk, last: Call | None, at: float) -> Call:
        if last is not None:
            talk.prompt = self._say(talk.prompt, talk.answer, talk.ratio)
        question = self._length(self.chats.question_tokens)
        talk.prompt = self._say(talk.prompt, question, talk.ratio)
        before = last if self.chats.closed else None
        talk.answer = self._length(self.chats.answer_tokens)
        thought, reply = 0, EMPTY
        if self.chats.thought_tokens:
            thought = self._length(self.chats.thought_tokens)
            # No later prompt will match it.
            reply = Prompt((self._block(talk.ratio),), (talk.prompt.size + 1,), (1,))
        return Call(
            id=next(self.ids),
            at=at if before is None else self._pause(),
            after=None if before is None else before.id,
            client=talk.client,
            session=talk.session,
            prompt=talk.prompt,
            prompt_tokens=max(2, round(marks(talk.prompt)[-1])),
            answer_tokens=thought + talk.answer,
            reply=reply,
        )

    def _length(self, mean: float) -> int:
        return max(4, int(mean * self.chance.lognormvariate(-0.32, 0.8)))

    def _block(self, ratio: float) -> bytes:
        """Return a hash for a text of about so many tokens per byte."""
        drawn = ratio * self.chance.gauss(1, 0.05)
        share = (drawn - LEAST_RATIO) / (MOST_RATIO - LEAST_RATIO)
        first = round(0xFFFF * min(max(share, 0.0), 1.0))
        return first.to_bytes(2, "big") + self.chance.randbytes(6)

    def _say(self, prompt: Prompt, tokens: int, ratio: float) -> Prompt:
        """Add a message with new text."""
        blocks, ends = list(prompt.blocks), list(prompt.ends)
        at, left = prompt.size, max(1, int(tokens / ratio) - FRAME_BYTES)
        while left > 0:
            size = min(left, block_bytes(at))
            at, left = at + size, left - size
            blocks.append(self._block(ratio))
            ends.append(at)
        ends[-1] += FRAME_BYTES
        return Prompt(tuple(blocks), tuple(ends), (*prompt.messages, len(blocks)))


def trace(
    chats: Chats, conversations_per_second: float, conversations: int, seed: int
) -> list[Call]:
    """Make conversations that begin at random, so many a second."""
    writer = Writer(chats, seed)
    calls: list[Call] = []
    at = 0.0
    for number in range(conversations):
        at += writer.chance.expovariate(conversations_per_second)
        calls += writer.conversation(number, at)
    return with_replies(calls)
