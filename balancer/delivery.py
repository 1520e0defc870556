"""The way back to one client, with what every answer says about how it came about."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol
from urllib.parse import quote

from balancer.given import Given
from balancer.stream import Flow, error_event
from edgeserve import envelope
from edgeserve.errors import EdgeserveError
from edgeserve.openai import Dialect
from edgeserve.relay.exchange import Reply
from edgeserve.relay.upstream import Answer
from edgeserve.wire import REQUEST_HEADER

NODE_HEADER = "x-edgeserve-node"
MODEL_HEADER = "x-edgeserve-model"
ATTEMPTS_HEADER = "x-edgeserve-attempts"

HEADER_SAFE = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}~"
"""What stays as it is beside letters and digits: all of ASCII but `%`."""

LIFE_SECONDS = 15.0
"""Clients and the proxies between us give up on what says nothing for longer."""


class Counts(Protocol):
    """Whoever watches over a stream."""

    texts: int


@dataclass(slots=True)
class Delivery:
    """One answer, to a request for `path`.

    `began`: when its first content byte went out, by `clock`. `on_begin` is called in
    that moment. `given` is the content of a stream so far; of a client that does not
    stream, what would be.
    """

    reply: Reply
    request_id: str
    path: str = ""
    clock: Callable[[], float] = time.monotonic
    on_begin: Callable[[], None] | None = None
    status: int = 0
    began: float | None = None
    attempts: int = 0
    given: Given = field(default_factory=Given)
    heard: float = 0.0
    _node: str = ""
    _variant: str = ""

    def comes_from(self, node: str, variant: str) -> None:
        """Name who answers; counts the attempt."""
        self.attempts += 1
        self._node, self._variant = node, variant
        self.heard = self.clock()

    def paused(self) -> bool:
        """Whether the client takes nothing now."""
        return self.reply.paused

    @property
    def silent(self) -> bool:
        """Whether a client that waits for a stream should get a sign of life."""
        return self.clock() - self.heard > LIFE_SECONDS

    async def life(self, headers: Mapping[str, str], data: bytes) -> None:
        """Pass on a sign of life: the answer's head is out, its content is not."""
        await self._start(headers)
        self.heard = self.clock()
        await self.reply.write(data)

    async def content(self, headers: Mapping[str, str], data: bytes) -> None:
        """Pass on content of a stream."""
        await self._start(headers)
        self._begin()
        self.given.add(data)
        await self.reply.write(data)

    async def rest(self, answer: Answer, flow: Flow, vigil: Counts) -> None:
        """Pass on the rest of a stream as it comes. Raises NodeLost.

        `vigil` counts what comes of the answer itself; a ping is nothing of it.
        """
        feed, keep = flow.feed, self.given.add

        def sieve(piece: bytes) -> bytes:
            if ready := feed(piece):
                keep(ready)
                vigil.texts += not ready.startswith(b":")
            return ready

        await answer.sift(self.reply, sieve)

    async def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send a whole answer."""
        self._begin()
        self.status = status
        await self.reply.send(status, {**headers, **self.about()}, body)

    async def end(self, last: bytes = b"") -> None:
        """End a stream, with these events."""
        if last:
            await self.reply.write(last)
        await self.reply.finish()

    async def fail(self, error: EdgeserveError, dialect: Dialect) -> None:
        """Say what went wrong: as a whole answer, or inside the stream under way."""
        if not self.reply.started:
            self.status = error.status
            headers = {**envelope.headers(error, self.path), **self.about()}
            body = envelope.rendered(error, self.path, self.request_id)
            await self.reply.send(error.status, headers, body)
            return
        await self.end(error_event(dialect, error, self.request_id))

    def about(self) -> dict[str, str]:
        """Return the headers that every answer carries."""
        about = {REQUEST_HEADER: self.request_id, ATTEMPTS_HEADER: str(self.attempts)}
        if self._node:
            about[NODE_HEADER] = header_safe(self._node)
            about[MODEL_HEADER] = header_safe(self._variant)
        return about

    async def _start(self, headers: Mapping[str, str]) -> None:
        if not self.reply.started:
            self.status = 200
            await self.reply.start(200, {**headers, **self.about()})

    def _begin(self) -> None:
        if self.began is None:
            self.began = self.clock()
            if self.on_begin is not None:
                self.on_begin()


@lru_cache(256)
def header_safe(text: str) -> str:
    """Percent-encode what may not stand in a header: names may be anything."""
    return quote(text, safe=HEADER_SAFE, errors="replace")
