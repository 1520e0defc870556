"""Ollama response: a client's response that speaks Ollama's format.

Relay, retries and resumes write OpenAI's format into it, and know nothing of Ollama's.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping

from balancer.ollama.answers import Moment, OllamaAnswer, error_body
from edgeserve.errors import NodeLost
from edgeserve.http.types import ChangedResponse, Response

IGNORED_HEADER = "x-edgeserve-ignored"
"""Fields of the request that have no effect here."""

Clock = Callable[[], float]


async def nothing() -> None:
    """Do nothing before the end of an answer."""


class OllamaResponse(ChangedResponse):
    """See `Response`. `before_end` is awaited before the last bytes of an answer."""

    __slots__ = ("_answer", "_before_end", "_began", "_clock", "_ignored")

    def __init__(
        self,
        reply: Response,
        answer: OllamaAnswer,
        ignored: tuple[str, ...] = (),
        before_end: Callable[[], Awaitable[None]] = nothing,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(reply)
        self._answer = answer
        self._ignored = ignored
        self._before_end = before_end
        self._clock = clock
        self._began = clock()

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Begin a stream of lines."""
        await self.reply.start(status, self._headers(headers, self._answer.media))

    async def write(self, data: bytes) -> None:
        """Send the lines for a piece of a stream, if there are any."""
        if lines := self._answer.feed(data, self._now()):
            await self.reply.write(lines)

    async def finish(self) -> None:
        """End the stream with its last line."""
        await self._before_end()
        if last := self._answer.end(self._now()):
            await self.reply.write(last)
        await self.reply.finish()

    async def send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send a whole answer, or an error."""
        if status == 200:
            status, body = self._whole(body)
        else:
            body = error_body(body)
        if status == 200:
            await self._before_end()
        await self.reply.send(status, self._headers(headers, "application/json"), body)

    def _whole(self, body: bytes) -> tuple[int, bytes]:
        try:
            return 200, self._answer.whole(body, self._now())
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            odd = NodeLost(f"the engine's answer is not as it should be: {error!r}")
            return odd.status, error_body(odd.body())

    def _headers(self, headers: Mapping[str, str], media: str) -> dict[str, str]:
        found = {**headers, "content-type": media}
        if self._ignored:
            found[IGNORED_HEADER] = ", ".join(self._ignored)
        return found

    def _now(self) -> Moment:
        return Moment(time.time(), self._clock() - self._began)
