"""What clients ask, and what they got: text, pieces, and how long they waited."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.endpoint.conftest import MODEL

BUDGETS = (24, 32, 48, 72)
TOPICS = (
    "Count from one to one hundred in words.",
    "Tell a long story about a lighthouse.",
    "Explain how bread is baked, step by step.",
    "List the planets and say a sentence about each.",
    "Describe a day in the life of a beekeeper.",
    "Write a letter to a friend who has moved away.",
    "Explain why the sky is blue.",
    "Give advice to somebody who learns to play chess.",
)
PREFACE = "Answer with care, in plain words, and at some length. "


@dataclass(frozen=True)
class Question:
    """One greedy chat of exactly so many tokens, streamed or not."""

    words: str
    tokens: int
    streams: bool = True

    @property
    def body(self) -> dict[str, Any]:
        """The request."""
        asked = {
            "model": MODEL,
            "messages": [{"role": "user", "content": self.words}],
            "max_tokens": self.tokens,
            "ignore_eos": True,
            "temperature": 0,
        }
        usage = {"stream_options": {"include_usage": True}} if self.streams else {}
        return {**asked, "stream": self.streams, **usage}


def questions() -> list[Question]:
    """Short and long prompts, short and long answers; one in four does not stream."""
    found: list[Question] = []
    for number, topic in enumerate(TOPICS):
        for turn in range(2):
            budget = BUDGETS[(number + 2 * turn) % len(BUDGETS)]
            words = PREFACE * (4 * turn) + topic
            found.append(Question(words, budget, (number + turn) % 4 != 3))
    return found


@dataclass
class Answer:
    """One answer as its client got it. Times are of `time.monotonic`.

    `pieces` are the texts of its events, `gap` the longest wait between two of them.
    """

    question: Question
    status: int = 0
    error: str = ""
    id: str = ""
    node: str = ""
    pieces: list[str] = field(default_factory=list[str])
    gap: float = 0.0
    record: dict[str, Any] = field(default_factory=dict[str, Any])
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False
    _body: bytes = b""
    _read: int = 0
    _latest: float | None = None

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.pieces)

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """What the balancer tried, by its own account."""
        attempts: list[dict[str, Any]] = self.record.get("attempts", [])
        return attempts

    @property
    def breaks(self) -> int:
        """How often an engine broke off in the midst of it."""
        return sum(
            (each["outcome"] or "").startswith("broke off") for each in self.attempts
        )

    @property
    def events(self) -> list[Any]:
        """The events of a stream."""
        return list(_events(self._body))

    @property
    def wrong(self) -> str:
        """What is wrong with it, by its own account; empty if nothing."""
        if self.error or self.status != 200:
            return self.error or f"{self.status}: {self._body[:300]!r}"
        return _wrong_stream(self) if self.question.streams else _wrong_whole(self)

    def take(self, data: bytes) -> None:
        """Take bytes that came."""
        self._body += data
        if not self.question.streams:
            return
        whole = self._body.rfind(b"\n\n") + 2
        for event in _events(self._body[self._read : whole]):
            for choice in event.get("choices", []):
                if text := choice["delta"].get("content"):
                    self._spoke(text)
        self._read = whole

    def ended(self) -> None:
        """Take the end of a body that came whole."""
        if not self.question.streams and self.status == 200:
            self.pieces = [self.whole["choices"][0]["message"]["content"]]

    @property
    def whole(self) -> dict[str, Any]:
        """The body of an answer that does not stream."""
        found: dict[str, Any] = json.loads(self._body)
        return found

    @property
    def done(self) -> int:
        """How often the stream says that it is over."""
        return self._body.count(b"data: [DONE]")

    def _spoke(self, text: str) -> None:
        now = time.monotonic()
        if self._latest is not None:
            self.gap = max(self.gap, now - self._latest)
        self._latest = now
        self.pieces.append(text)
        self.begun.set()


def _events(body: bytes) -> Iterator[dict[str, Any]]:
    for line in body.splitlines():
        if line.startswith(b"data: ") and line != b"data: [DONE]":
            yield json.loads(line[6:])


def _wrong_stream(answer: Answer) -> str:
    events = answer.events
    told = [each for each in events if "error" in each]
    choices = [choice for each in events for choice in each.get("choices", [])]
    roles = sum("role" in choice["delta"] for choice in choices)
    ends = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    usage = events[-1].get("usage") if events else None
    counted = usage and usage["completion_tokens"]
    checks = {
        f"an error event {told}": bool(told),
        f"{answer.done} times [DONE]": answer.done != 1,
        f"{roles} roles": roles != 1,
        f"ends {ends}": ends != ["length"],
        f"{counted} tokens instead of {answer.question.tokens}": (
            counted != answer.question.tokens
        ),
        "several ids": len({each.get("id") for each in events}) != 1,
    }
    return "; ".join(what for what, holds in checks.items() if holds)


def _wrong_whole(answer: Answer) -> str:
    counted = answer.whole["usage"]["completion_tokens"]
    if counted != answer.question.tokens:
        return f"{counted} tokens instead of {answer.question.tokens}"
    return ""


async def asked(session: aiohttp.ClientSession, answer: Answer) -> Answer:
    """Ask, read to the end, and fetch what the balancer says about it."""
    try:
        async with session.post(
            "/v1/chat/completions", json=answer.question.body
        ) as response:
            answer.status = response.status
            answer.id = response.headers.get("x-edgeserve-request-id", "")
            answer.node = response.headers.get("x-edgeserve-node", "")
            async for piece in response.content.iter_any():
                answer.take(piece)
            answer.ended()
    except (aiohttp.ClientError, OSError) as error:
        answer.error = repr(error)
    finally:
        answer.over = True
        answer.begun.set()
    if answer.id:
        async with session.get(f"/edgeserve/v1/requests/{answer.id}") as explained:
            answer.record = await explained.json()
    return answer
