"""Message framing: finds where a body ends. Pure.

A framing takes bytes as they come and returns those of the body. It is `done` once the
body has ended; `excess` is what came after.
"""

from __future__ import annotations

import re
from typing import Protocol

from edgeserve.errors import BadRequest

TRAILER_BYTES = 8192
"""Most bytes of trailer fields after a chunked body; they are dropped."""

SLACK = 16384
"""Bytes of framing, past twice the body's, that a client's chunked body may have.

A body in chunks of one byte costs more to read than to send.
"""

LINE_BYTES = 256
"""Longest line before a chunk."""


TLS_HANDSHAKE = b"\x16"
"""First byte of every TLS connection, and of no HTTP request."""

TLS_ALERT = b"\x15\x03\x03\x00\x02\x02\x28"
"""What ends a handshake at once: fatal, handshake_failure."""


class Framing(Protocol):
    """Separates a body from its framing."""

    done: bool
    excess: bytes

    def feed(self, data: bytes) -> bytes:
        """Return the body's bytes in `data`. Raises BadRequest where it is broken."""
        ...


class Length:
    """A body of known length."""

    __slots__ = ("_left", "done", "excess")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0
        self.excess = b""

    def feed(self, data: bytes) -> bytes:
        """See `Framing.feed`."""
        left = self._left
        if len(data) < left:
            self._left = left - len(data)
            return data
        self.done = True
        self._left = 0
        self.excess = data[left:]
        return data[:left]


class UntilClosed:
    """A body that ends with its connection."""

    __slots__ = ("done", "excess")

    def __init__(self) -> None:
        self.done = False
        self.excess = b""

    def feed(self, data: bytes) -> bytes:
        """See `Framing.feed`."""
        return data


class Chunked:
    """A body in chunks, each after a line with its size."""

    __slots__ = ("_held", "_left", "_overhead", "_slack", "_trailer", "done", "excess")

    def __init__(self, slack: float = SLACK) -> None:
        self._slack = slack
        self._overhead = 0  # bytes of framing, less twice those of the body
        self._held = b""  # a line that is not complete
        self._left = 0  # bytes of this chunk and its line end still to come
        self._trailer = -1  # bytes of trailer so far; -1 before the last chunk
        self.done = False
        self.excess = b""

    def feed(self, data: bytes) -> bytes:
        """See `Framing.feed`."""
        if self._held:
            data, self._held = self._held + data, b""
        body: list[bytes] = []
        at, end = 0, len(data)
        while at < end and not self.done:
            if self._left:
                at = self._take_chunk(data, at, body)
            elif self._trailer >= 0:
                at = self._drop_trailer(data, at)
            else:
                at = self._take_size(data, at)
        if self.done:
            self.excess = data[at:]
        return body[0] if len(body) == 1 else b"".join(body)

    def _take_chunk(self, data: bytes, at: int, body: list[bytes]) -> int:
        """Take the bytes of the chunk; its last two are a line end."""
        stop = min(at + self._left, len(data))
        self._left -= stop - at
        payload = stop - max(0, 2 - self._left)
        if payload > at:
            body.append(data[at:payload])
        ending = data[max(at, payload) : stop]
        if ending and ending != b"\r\n"[2 - self._left - len(ending) :][: len(ending)]:
            raise BadRequest("a chunk is longer than its size")
        return stop

    def _take_size(self, data: bytes, at: int) -> int:
        """Read the line before a chunk."""
        found = _CHUNK.match(data, at)
        if found is None:
            return self._keep(data, at, LINE_BYTES)
        size = int(found[1], 16)
        self._overhead = max(0, self._overhead + found.end() - at + 2 - 2 * size)
        if self._overhead > self._slack:
            raise BadRequest("the chunks of a body are too small")
        if size:
            self._left = size + 2
        else:
            self._trailer = 0
        return found.end()

    def _drop_trailer(self, data: bytes, at: int) -> int:
        """Drop trailer fields up to the empty line."""
        end = data.find(b"\r\n", at)
        if end < 0:
            return self._keep(data, at, TRAILER_BYTES - self._trailer)
        self._trailer += end + 2 - at
        self.done = end == at
        if self._trailer > TRAILER_BYTES or b"\n" in data[at:end]:
            raise BadRequest("the trailer of a chunked body is malformed")
        return end + 2

    def _keep(self, data: bytes, at: int, limit: int) -> int:
        """Keep a part of a line until the rest comes. Raises BadRequest."""
        self._held = data[at:]
        if len(self._held) > limit or b"\n" in self._held:
            raise BadRequest("a chunked body is malformed")
        return len(data)


_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[^\r\n]*)?\r\n")
