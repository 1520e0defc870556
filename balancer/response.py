"""Client responses: headers, the stream so far, and keep-alive comments.

A client that does not stream gets none: its status line would have to go out first, and
a refusal with its true status and `Retry-After` is worth more to it than patience.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol
from urllib.parse import quote

from balancer.dialects.base import Dialect
from balancer.dialects.stream import StreamReader
from balancer.routing.decision import Decision, Wait
from balancer.routing.queued_request import Note
from edgeserve import openai
from edgeserve.errors import EdgeserveError
from edgeserve.http.types import Answer, Response
from edgeserve.wire import REQUEST_HEADER

MOST = 4 * 2**20
"""Bytes of events; past it an answer that breaks off cannot go on."""

LOOSE = 16384
"""Bytes kept as they are; events repeat themselves, packed they take a twentieth."""


@dataclass(slots=True)
class SentEvents:
    """Whole events, in order. `size` is their bytes."""

    size: int = 0
    _packed: list[bytes] = field(default_factory=list[bytes])
    _loose: list[bytes] = field(default_factory=list[bytes])
    _unpacked: int = 0

    def add(self, events: bytes) -> None:
        """Take in what goes out."""
        self.size += len(events)
        self._unpacked += len(events)
        self._loose.append(events)
        if self._unpacked > LOOSE:
            self._pack()

    def whole(self) -> bytes:
        """Return all of it."""
        return b"".join([*map(zlib.decompress, self._packed), *self._loose])

    def forget(self) -> None:
        """Begin anew."""
        self.size = self._unpacked = 0
        self._packed, self._loose = [], []

    def _pack(self) -> None:
        # Past the limit only a client that does not stream still needs it.
        self._packed.append(zlib.compress(b"".join(self._loose), 1))
        self._loose, self._unpacked = [], 0


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
class ClientResponse:
    """One answer, to a request for `path`.

    `began`: when its first content byte went out, by `clock`. `on_begin` is called in
    that moment. `given` is the content of a stream so far; of a client that does not
    stream, what would be.
    """

    reply: Response
    request_id: str
    path: str = ""
    clock: Callable[[], float] = time.monotonic
    on_begin: Callable[[], None] | None = None
    status: int = 0
    began: float | None = None
    attempts: int = 0
    given: SentEvents = field(default_factory=SentEvents)
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

    async def rest(self, answer: Answer, flow: StreamReader, watchdog: Counts) -> None:
        """Pass on the rest of a stream as it comes. Raises NodeLost.

        `vigil` counts what comes of the answer itself; a ping is nothing of it.
        """
        feed, keep = flow.feed, self.given.add

        def sieve(piece: bytes) -> bytes:
            if ready := feed(piece):
                keep(ready)
                watchdog.texts += not ready.startswith(b":")
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

    async def fail(self, error: EdgeserveError, dialect: type[Dialect]) -> None:
        """Say what went wrong: as a whole answer, or inside the stream under way."""
        if not self.reply.started:
            self.status = error.status
            headers = {**openai.headers(error, self.path), **self.about()}
            body = openai.rendered(error, self.path, self.request_id)
            await self.reply.send(error.status, headers, body)
            return
        await self.end(dialect.error_event(error, self.request_id))

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


HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache",
}
EVERY_SECONDS = 10.0
"""Clients and proxies give up after 30 s of silence at the earliest."""

WAITING = b": waiting for a slot\n\n"


class KeepAlive:
    """Begins with a decision to wait, or to hope; `end` must follow once `begun`."""

    __slots__ = ("_delivery", "_note", "_streams", "_task")

    def __init__(self, delivery: ClientResponse, note: Note, *, streams: bool) -> None:
        self._delivery = delivery
        self._note = note
        self._streams = streams
        self._task: asyncio.Task[None] | None = None

    @property
    def begun(self) -> bool:
        """Whether the client is being kept company."""
        return self._task is not None

    def note(self, decision: Decision) -> None:
        """Take in a decision, and pass it on."""
        if isinstance(decision, Wait):
            self.begin()
        self._note(decision)

    def begin(self) -> None:
        """Keep the client company, where it asked for a stream."""
        if self._streams and self._task is None:
            self._task = asyncio.create_task(self._speak(), name="waiting")

    async def end(self) -> None:
        """Fall silent; somebody else speaks now."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await self._task

    async def _speak(self) -> None:
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            await self._delivery.life(HEADERS, WAITING)
