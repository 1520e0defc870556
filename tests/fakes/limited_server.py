"""A server of another program that answers a few requests at once; others wait."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.fakes.servers import ANSWER, DONE, FakeServer, Json, chunk, serving

TOKENS = 10
USAGE_OF_TOKENS = (
    b'data: {"id":"c1","choices":[],"usage":{"prompt_tokens":40,"completion_tokens":%d,'
    b'"total_tokens":50}}\n\n' % TOKENS
)


@dataclass
class LimitedServer(FakeServer):
    """Answers `slots` requests at once, at its own pace, and shows it in its metrics.

    `others`: requests of others that its metrics count, too.
    """

    slots: int = 2
    first_seconds: float = 0.02
    token_seconds: float = 0.01
    others: int = 0
    running: int = 0
    waiting: int = 0

    def __post_init__(self) -> None:
        self._room = asyncio.Semaphore(self.slots)
        self._note()

    def _note(self) -> None:
        if "/metrics" in self.answers:
            self.answers["/metrics"] = (
                b"vllm:num_requests_running %d\nvllm:num_requests_waiting %d\n"
                % (self.running + self.others, self.waiting)
            )

    def counts(self, others: int) -> None:
        """Have so many requests of others."""
        self.others = others
        self._note()

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        self.waiting += 1
        self._note()
        async with self._room:
            self.waiting -= 1
            self.running += 1
            self._note()
            try:
                return await self._write(request)
            finally:
                self.running -= 1
                self._note()

    async def _write(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        await answer.write(ANSWER[0])
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(self.first_seconds)
        for _ in range(TOKENS - 1):
            await answer.write(chunk({"content": "a"}))
            await asyncio.sleep(self.token_seconds)
        for piece in (chunk({"content": "a"}, "stop"), USAGE_OF_TOKENS, DONE):
            await answer.write(piece)
        return answer


def limited_server(
    answers: Json, **fields: Any
) -> AbstractAsyncContextManager[LimitedServer]:
    """Serve until the block ends."""
    return serving(LimitedServer(dict(answers), **fields))
