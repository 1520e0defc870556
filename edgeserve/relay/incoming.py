"""A request while it comes in: its head is here, its body is not yet whole. Pure."""

from __future__ import annotations

from edgeserve.errors import TooLarge
from edgeserve.relay.coding import undoing
from edgeserve.relay.exchange import Request
from edgeserve.relay.framing import Chunked, Framing, Length
from edgeserve.relay.head import Head, fields, written
from edgeserve.relay.limits import BODY_STEP

CODING = "content-encoding"


class Incoming:
    """Collects one body; raises TooLarge once it shows to pass `limit` bytes.

    `size` is what is here of it, its `Content-Encoding` undone.
    """

    __slots__ = ("_framing", "_inflate", "_limit", "_pieces", "_step", "head", "size")

    def __init__(self, head: Head, limit: int) -> None:
        if head.length is not None and head.length > limit:
            raise TooLarge(limit)
        self.head = head
        self.size = 0
        self._limit = limit
        self._pieces: list[bytes] = []
        self._step = 0
        coding = head.headers.get(CODING)
        self._inflate = None if coding is None else undoing(coding)
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
        if self._inflate is not None:
            piece = self._inflate.feed(piece, self._limit - self.size)
        self.size += len(piece)
        if self.size > self._limit:
            raise TooLarge(self._limit)
        if self._inflate is not None and self._framing.done:
            self._inflate.check_end()
        if piece:
            self._pieces.append(piece)
        ahead = self.size - self._step >= BODY_STEP
        if ahead:
            self._step = self.size
        return ahead

    def request(self, peer: str) -> Request:
        """Return the whole request; keep nothing of its body."""
        head = self.head
        headers = head.headers
        if CODING in headers:
            headers = {k: v for k, v in headers.items() if k != CODING}
        body = self._body()
        return Request(head.method, head.path, head.query, headers, body, peer)

    def rendered(self) -> bytes:
        """Return the whole request as a new message, of the simplest form."""
        request, old = self.request(""), self.head.old
        lines = [f"{request.method} {request.target} HTTP/1.{0 if old else 1}"]
        if "host" in request.headers:
            lines.append(f"host: {request.headers['host']}")
        lines += [*fields(request.headers), f"content-length: {len(request.body)}"]
        return written(lines) + request.body

    def _body(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
