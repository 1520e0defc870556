"""A request while it comes in: its head is here, its body is not yet whole. Pure."""

from __future__ import annotations

from edgeserve.errors import TooLarge
from edgeserve.relay.exchange import Request
from edgeserve.relay.framing import Chunked, Framing, Length
from edgeserve.relay.head import Head
from edgeserve.relay.limits import BODY_STEP


class Incoming:
    """Collects one body; raises TooLarge once it shows to pass `limit` bytes."""

    __slots__ = ("_framing", "_limit", "_pieces", "_size", "_step", "head")

    def __init__(self, head: Head, limit: int) -> None:
        if head.length is not None and head.length > limit:
            raise TooLarge(limit)
        self.head = head
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = self._step = 0
        self._framing: Framing = (
            Chunked() if head.length is None else Length(head.length)
        )

    @property
    def whole(self) -> bool:
        """Whether the body has ended."""
        return self._framing.done

    @property
    def excess(self) -> bytes:
        """What came after the body: the start of the next request."""
        return self._framing.excess

    def feed(self, data: bytes) -> bool:
        """Take more bytes; say whether they amount to progress."""
        piece = self._framing.feed(data)
        self._size += len(piece)
        if self._size > self._limit:
            raise TooLarge(self._limit)
        if piece:
            self._pieces.append(piece)
        ahead = self._size - self._step >= BODY_STEP
        if ahead:
            self._step = self._size
        return ahead

    def request(self, peer: str) -> Request:
        """Return the whole request."""
        head = self.head
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return Request(head.method, head.path, head.query, head.headers, body, peer)
