"""One streamed chat as its client sees it: when words came, and what they cost."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

PATH = "/v1/chat/completions"
LONGEST_SECONDS = 300.0
CUT_OFF = "cut off"
Messages = list[dict[str, str]]


@dataclass
class Answer:
    """One request. `asked` is of `time.monotonic`; the rest are seconds after it.

    `timings` are the engine's own, of the last event.
    """

    asked: float
    first: float | None = None
    whole: float | None = None
    timings: dict[str, float] = field(default_factory=dict[str, float])
    node: str = ""
    id: str = ""
    error: str = ""
    words: list[str] = field(default_factory=list[str])

    @property
    def cached(self) -> int:
        """Tokens of the prompt that were not read again."""
        return int(self.timings.get("cache_n", 0))

    @property
    def prompt(self) -> int:
        return self.cached + int(self.timings.get("prompt_n", 0))

    @property
    def text(self) -> str:
        return "".join(self.words)

    def cut_off(self, now: float) -> None:
        """Count what has not come as if it came now: the true times are longer."""
        if self.whole is None and not self.error:
            self.error = CUT_OFF
            self.whole = now - self.asked
            self.first = self.first or self.whole

    def take(self, event: dict[str, Any]) -> None:
        """Note what one event says."""
        if "error" in event:
            self.error = str(event["error"])
        choices = event.get("choices") or [{}]
        if word := choices[0].get("delta", {}).get("content"):
            if self.first is None:
                self.first = time.monotonic() - self.asked
            self.words.append(word)
        self.timings = event.get("timings", self.timings)


Named = Callable[[aiohttp.ClientResponse, dict[str, Any]], str]
"""Which node it was, by the head of the answer and an event of it."""


def session() -> aiohttp.ClientSession:
    """Return a session that never makes a request wait for another.

    Each request has a connection of its own: llama.cpp closes them after a stream,
    without saying so.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        timeout=aiohttp.ClientTimeout(total=LONGEST_SECONDS),
    )


async def ask(
    client: aiohttp.ClientSession,
    url: str,
    body: dict[str, Any],
    named: Named = lambda _, __: "",
    answer: Answer | None = None,
) -> Answer:
    """Ask and read to the end; a failure is in the answer's `error`.

    A given `answer` is filled, so that its caller has what came of it when cancelled.
    """
    answer = answer or Answer(time.monotonic())
    try:
        async with client.post(url, json={**body, "stream": True}) as response:
            answer.id = response.headers.get("x-edgeserve-request-id", "")
            response.raise_for_status()
            async for line in response.content:
                if line.startswith(b"data: {"):
                    event = json.loads(line[6:])
                    answer.node = answer.node or named(response, event)
                    answer.take(event)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        answer.error = f"{type(error).__name__}: {error}"
    else:
        answer.whole = time.monotonic() - answer.asked
    if not answer.error and answer.first is None:
        answer.error = "no word came"
    return answer
