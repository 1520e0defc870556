"""Request body: collects one body, decoded, up to a limit. Pure."""

from __future__ import annotations

import zlib
from typing import Protocol

from edgeserve.errors import BadRequest, TooLarge, UnsupportedCoding
from edgeserve.http.framing import Chunked, Framing, Length
from edgeserve.http.heads import Head, fields, written
from edgeserve.http.server.limits import BODY_STEP
from edgeserve.http.types import Request

CODINGS = ("gzip", "deflate")
"""Content codings that are decoded here."""

_ZLIB = 8
"""Low half of the first byte that zlib writes; some clients send deflate without it."""


class _Decompress(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class Inflate:
    """Decodes one body."""

    __slots__ = ("_coding", "_inner")

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._inner: _Decompress | None = None  # from the first byte on

    def feed(self, data: bytes, most: int) -> bytes:
        """Return the decoded bytes of `data`; at most one byte more than `most`.

        Raises BadRequest where it is broken, or goes on after its end.
        """
        if not data:
            return b""
        if self._inner is None:
            self._inner = zlib.decompressobj(self._wbits(data[0]))
        try:
            found = self._inner.decompress(data, most + 1)
        except zlib.error as error:
            raise BadRequest(f"the body is not {self._coding}: {error}") from None
        if self._inner.unused_data:
            raise BadRequest(f"the body goes on after the end of its {self._coding}")
        return found

    def _wbits(self, first: int) -> int:
        if self._coding == "gzip":
            return 16 + zlib.MAX_WBITS
        return zlib.MAX_WBITS if first & 0x0F == _ZLIB else -zlib.MAX_WBITS

    def check_end(self) -> None:
        """Raise BadRequest where the body is incomplete."""
        if self._inner is not None and not self._inner.eof:
            raise BadRequest(f"the body breaks off within its {self._coding}")


def decoder_for(coding: str | None) -> Inflate | None:
    """Return the decoder of a content coding, None where there is none."""
    name = (coding or "").strip().lower().removeprefix("x-")
    if name in {"", "identity"}:
        return None
    if name not in CODINGS:
        raise UnsupportedCoding(name, CODINGS)
    return Inflate(name)


CODING = "content-encoding"


class RequestBody:
    """Collects one body; raises TooLarge once it is known to pass `limit` bytes.

    `size` is the number of decoded bytes so far.
    """

    __slots__ = ("_inflate", "_limit", "_pieces", "_step", "framing", "head", "size")

    def __init__(self, head: Head, limit: int) -> None:
        if head.length is not None and head.length > limit:
            raise TooLarge(limit)
        self.head = head
        self.size = 0
        self._limit = limit
        self._pieces: list[bytes] = []
        self._step = 0
        coding = head.headers.get(CODING)
        self._inflate = None if coding is None else decoder_for(coding)
        self.framing: Framing = (
            Chunked() if head.length is None else Length(head.length)
        )

    def feed(self, data: bytes) -> bool:
        """Take more bytes; return whether they count as progress."""
        piece = self.framing.feed(data)
        if self._inflate is not None:
            piece = self._inflate.feed(piece, self._limit - self.size)
        self.size += len(piece)
        if self.size > self._limit:
            raise TooLarge(self._limit)
        if self._inflate is not None and self.framing.done:
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
