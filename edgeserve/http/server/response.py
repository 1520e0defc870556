"""Server response: frames an answer and writes it to the client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from email.utils import formatdate
from typing import Protocol

from edgeserve.http.heads import BODILESS, JOINED, Head, fields, status_line, written
from edgeserve.http.raw import PROTOCOL, RawStream
from edgeserve.http.types import Response

PREFIX = "access-control-"


class Feeder(Protocol):
    """The source of an answer, which pauses while the client's buffer is full."""

    def resume(self) -> None:
        """Continue: the client's buffer has room."""
        ...


class ClientConnection(Protocol):
    """The connection that an answer is written to."""

    @property
    def lost(self) -> bool:
        """Whether the client has gone."""
        ...

    @property
    def paused(self) -> bool:
        """Whether the client's buffer is full."""
        ...

    @property
    def transport(self) -> asyncio.Transport:
        """Where bytes go."""
        ...

    @property
    def keeps(self) -> bool:
        """Whether the server takes another request after this one."""
        ...

    feeder: Feeder | None

    async def drained(self) -> None:
        """Wait until the buffer has room. Raises ConnectionError if the client goes."""
        ...

    def connection_lost(self, exc: Exception | None) -> None:
        """End all work for this client."""
        ...


class ServerResponse:
    """The one answer to one request; see `Response`."""

    __slots__ = (
        "_chunked", "_head", "_mute", "connection", "cors_headers", "finished", "keep",
        "missed", "started",
    )  # fmt: skip

    def __init__(self, connection: ClientConnection, head: Head) -> None:
        self.connection = connection
        self._head = head
        self._mute = self._chunked = False
        self.cors_headers: dict[str, str] | None = (
            None  # for a web page of another origin
        )
        self.started = self.finished = self.missed = False
        self.keep = head.keep_alive

    @property
    def paused(self) -> bool:
        """See `Response.paused`."""
        return self.connection.paused

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """See `Response.start`."""
        bodiless = status in BODILESS
        self._mute = bodiless or self._head.method == "HEAD"
        self._chunked = not self._head.old
        if self._head.old and not self._mute:
            self.keep = False  # only the end of the connection can end this body
        framing = "transfer-encoding: chunked" if self._chunked else ""
        self._write(self._rendered(status, headers, "" if bodiless else framing))

    def put(self, data: bytes) -> None:
        """Send a piece without waiting for room; `paused` says when to stop."""
        if self._mute or not data:  # an empty chunk would end the body
            return
        if not self.started:
            raise RuntimeError("an answer must start before its body")
        self._write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    async def write(self, data: bytes) -> None:
        """See `Response.write`."""
        self.put(data)
        if self.connection.paused:
            await self.connection.drained()

    async def finish(self) -> None:
        """See `Response.finish`."""
        if not self.started:
            raise RuntimeError("an answer must start before it can finish")
        if self._chunked and not self._mute:
            self._write(b"0\r\n\r\n")
        self.finished = True
        if self.connection.paused:
            await self.connection.drained()

    async def send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """See `Response.send`."""
        self.put_whole(status, headers, body)
        if self.connection.paused:
            await self.connection.drained()

    def put_whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send a whole answer without waiting for room."""
        mute = status in BODILESS or self._head.method == "HEAD"
        length = "" if mute and not body else f"content-length: {len(body)}"
        head = self._rendered(status, headers, length)
        self.finished = True
        if mute:
            self._write(head)
        elif len(body) <= JOINED:
            self._write(head + body)
        else:
            self._write(head)
            self._write(body)

    def _rendered(self, status: int, headers: Mapping[str, str], framing: str) -> bytes:
        if self.started:
            raise RuntimeError("an answer can start only once")
        self.keep = self.keep and self.connection.keeps
        if self.cors_headers:
            headers = with_cors_headers(headers, self.cors_headers)
        lines = [status_line(status), *fields(headers), f"date: {_date()}"]
        if framing:
            lines.append(framing)
        if not self.keep:
            lines.append("connection: close")
        elif self._head.old:
            lines.append("connection: keep-alive")
        head = written(lines)
        self.started = True
        return head

    def _write(self, data: bytes) -> None:
        if self.connection.lost:
            self.missed = True
            raise ConnectionResetError("the client has gone")
        self.connection.transport.write(data)


UPGRADED = written([status_line(101), "connection: upgrade", f"upgrade: {PROTOCOL}"])


def upgraded(reply: Response) -> RawStream:
    """Answer 101, and take the connection for raw bytes.

    The handler goes on, and is cancelled when the client leaves; when it returns, the
    connection ends.
    """
    if not isinstance(reply, ServerResponse) or reply.started:
        raise RuntimeError("only an answer that has not started can be upgraded")
    connection = reply.connection
    if connection.lost:
        raise ConnectionResetError("the client has gone")
    reply.started = reply.finished = True
    reply.keep = False
    connection.transport.write(UPGRADED)
    return RawStream.taken(connection.transport, connection)


def with_cors_headers(
    headers: Mapping[str, str], cors_headers: Mapping[str, str]
) -> dict[str, str]:
    """Replace the CORS fields of the upstream by our own."""
    kept = {k: v for k, v in headers.items() if not k.lower().startswith(PREFIX)}
    return {**kept, **cors_headers}


_dated = (0, "")


def _date() -> str:
    """Render the time for a Date field, once a second."""
    global _dated
    second = int(time.time())
    if _dated[0] != second:
        _dated = (second, formatdate(second, usegmt=True))
    return _dated[1]
