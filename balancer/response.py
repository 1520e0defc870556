"""Client responses: headers, the events sent so far, and keep-alive comments.

A client that does not stream gets no keep-alive: that would send the status line first,
and a refusal needs its true status and `Retry-After`.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Protocol
from urllib.parse import quote

import msgspec

from balancer.dialects.base import Dialect
from balancer.dialects.stream import StreamReader
from edgeserve import openai
from edgeserve.errors import EdgeserveError
from edgeserve.http.types import Answer, Response
from edgeserve.wire import REQUEST_HEADER

MOST = 4 * 2**20
"""Bytes of events; a longer answer cannot be resumed."""

LOOSE = 16384
"""Bytes kept uncompressed; compressed events take a twentieth."""


LINGER_SECONDS = 1.0
"""Time for a body to close after the end of its answer; some servers leave it open."""


class SentEvents(msgspec.Struct):
    """The events of a stream so far, compressed. `size` is their length in bytes."""

    size: int = 0
    _packed: list[bytes] = []
    _loose: list[bytes] = []
    _unpacked: int = 0

    def add(self, events: bytes) -> None:
        """Add whole events."""
        self.size += len(events)
        self._unpacked += len(events)
        self._loose.append(events)
        if self._unpacked > LOOSE:
            self._pack()

    def whole(self) -> bytes:
        """Return all events."""
        return b"".join([*map(zlib.decompress, self._packed), *self._loose])

    def forget(self) -> None:
        """Forget all events."""
        self.size = self._unpacked = 0
        self._packed, self._loose = [], []

    def _pack(self) -> None:
        # Beyond `MOST` only a client that does not stream still needs the events.
        self._packed.append(zlib.compress(b"".join(self._loose), 1))
        self._loose, self._unpacked = [], 0


NODE_HEADER = "x-edgeserve-node"
MODEL_HEADER = "x-edgeserve-model"
ATTEMPTS_HEADER = "x-edgeserve-attempts"
ROUTE_HEADER = "x-edgeserve-route"
REASON_HEADER = "x-edgeserve-route-reason"

LONGEST_REASON = 400
"""Characters of the reason in a header; `edgeserve why` has all of it."""

HEADER_SAFE = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}~"
"""Characters that are not encoded: all of printable ASCII except `%`."""

KEEP_ALIVE_SECONDS = 15.0
"""Clients and proxies close connections that are silent for longer."""


class Counts(Protocol):
    """Counts the pieces of a stream; see `AttemptWatchdog`."""

    texts: int


class ClientResponse(msgspec.Struct):
    """One response, to a request for `path`.

    `began`: when the first byte of content was sent, by `clock`; `on_begin` is called
    then. `sent`: the content of a stream so far, also where the client does not
    stream and gets it aggregated. `limits`: header fields on what the key may
    still do; `route`: on the route that the request names.
    """

    reply: Response
    request_id: str
    path: str = ""
    clock: Callable[[], float] = time.monotonic
    on_begin: Callable[[], None] | None = None
    status: int = 0
    began: float | None = None
    attempts: int = 0
    sent: SentEvents = msgspec.field(default_factory=SentEvents)
    limits: dict[str, str] = {}
    route: dict[str, str] = {}
    last_sent: float = 0.0
    _node: str = ""
    _variant: str = ""

    def comes_from(self, node: str, variant: str) -> None:
        """Set the node that answers, and count the attempt."""
        self.attempts += 1
        self._node, self._variant = node, variant
        self.last_sent = self.clock()

    def follows(self, route: str, why: str) -> None:
        """Set the route that the request names, and why this model answers."""
        self.route = {
            ROUTE_HEADER: header_safe(route),
            REASON_HEADER: header_safe(why[:LONGEST_REASON]),
        }

    def paused(self) -> bool:
        """Whether the client does not read now."""
        return self.reply.paused

    @property
    def silent(self) -> bool:
        """Whether a client that waits for a stream should get a keep-alive."""
        return self.clock() - self.last_sent > KEEP_ALIVE_SECONDS

    async def send_keep_alive(self, headers: Mapping[str, str], data: bytes) -> None:
        """Send a keep-alive: headers are sent, content is not."""
        await self._start(headers)
        self.last_sent = self.clock()
        await self.reply.write(data)

    async def content(self, headers: Mapping[str, str], data: bytes) -> None:
        """Send content of a stream."""
        await self._start(headers)
        self._begin()
        self.sent.add(data)
        await self.reply.write(data)

    async def rest(
        self, answer: Answer, reader: StreamReader, watchdog: Counts
    ) -> None:
        """Send the rest of a stream as it arrives. Raises NodeLost.

        `watchdog` counts the pieces of the answer; a keep-alive does not count.
        """
        feed, keep = reader.feed, self.sent.add
        bound = asyncio.timeout(None)

        def filter_(piece: bytes) -> bytes:
            if ready := feed(piece):
                keep(ready)
                watchdog.texts += not ready.startswith(b":")
            if reader.ended:
                close_soon(bound)  # noqa: F821 - deleted once it is over
            return ready

        try:
            async with bound:
                if reader.ended:  # with its first piece
                    close_soon(bound)
                await answer.pump_filtered(self.reply, filter_)
        except TimeoutError:
            if not reader.ended:
                raise
        finally:
            del bound  # it holds the task, whose traceback would hold it

    async def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send a whole answer."""
        self._begin()
        self.status = status
        await self.reply.send(status, {**headers, **self.about()}, body)

    async def end(self, last: bytes = b"") -> None:
        """End a stream with these events."""
        if last:
            await self.reply.write(last)
        await self.reply.finish()

    async def fail(self, error: EdgeserveError, dialect: type[Dialect]) -> None:
        """Send an error, as a whole response or as the last event of a stream."""
        if not self.reply.started:
            self.status = error.status
            headers = {**openai.headers(error, self.path), **self.about()}
            body = openai.rendered(error, self.path, self.request_id)
            await self.reply.send(error.status, headers, body)
            return
        await self.end(dialect.error_event(error, self.request_id))

    def about(self) -> dict[str, str]:
        """Return the headers of every response."""
        about = {REQUEST_HEADER: self.request_id, ATTEMPTS_HEADER: str(self.attempts)}
        if self._node:
            about[NODE_HEADER] = header_safe(self._node)
            about[MODEL_HEADER] = header_safe(self._variant)
        if self.limits:
            about |= self.limits
        if self.route:
            about |= self.route
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


def close_soon(bound: asyncio.Timeout) -> None:
    """Bound what is still to be read of a body whose answer has ended."""
    if bound.when() is None:
        bound.reschedule(asyncio.get_running_loop().time() + LINGER_SECONDS)


@lru_cache(256)
def header_safe(text: str) -> str:
    """Percent-encode characters that a header may not contain."""
    return quote(text, safe=HEADER_SAFE, errors="replace")


HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache",
}
EVERY_SECONDS = 10.0
"""Clients and proxies wait through at least 30 s of silence."""

FIRST_SECONDS = 2.0
"""By then it is known whether an engine loads."""

KEEP_ALIVE = b": waiting for a slot\n\n"

Reason = Callable[[], str]
"""Says why a request waits, "" for nothing that a client does not expect."""


class KeepAlive:
    """Sends comments while a request waits, until `end`; `why` for each says why."""

    __slots__ = ("_response", "_task", "_why")

    def __init__(self, response: ClientResponse, why: Reason = lambda: "") -> None:
        self._response = response
        self._why = why
        self._task = asyncio.create_task(self._send_comments(), name="waiting")

    async def end(self) -> None:
        """Stop sending comments."""
        self._task.cancel()
        with suppress(asyncio.CancelledError, ConnectionError):
            await self._task

    async def _send_comments(self) -> None:
        first = min(FIRST_SECONDS, EVERY_SECONDS)
        await asyncio.sleep(first)
        if not self._why():
            await asyncio.sleep(EVERY_SECONDS - first)
        while True:
            why = _comment(self._why()) or KEEP_ALIVE
            await self._response.send_keep_alive(HEADERS, why)
            await asyncio.sleep(EVERY_SECONDS)


def _comment(why: str) -> bytes:
    """Render a comment of a stream; a name from outside must not end it."""
    line = " ".join(why.splitlines()).encode(errors="replace")
    return b": " + line + b"\n\n" if line else b""
