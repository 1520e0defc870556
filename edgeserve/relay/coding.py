"""Undo the `Content-Encoding` of a body as it comes, within a bound. Pure."""

from __future__ import annotations

import zlib
from typing import Protocol

from edgeserve.errors import BadRequest, UnsupportedCoding

CODINGS = ("gzip", "deflate")
"""What is undone here."""

_ZLIB = 8
"""Low half of the first byte that zlib writes; some send deflate without it."""


class _Decompress(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class Inflate:
    """Undoes one coding of one body."""

    __slots__ = ("_coding", "_inner")

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._inner: _Decompress | None = None  # from the first byte on

    def feed(self, data: bytes, most: int) -> bytes:
        """Return what `data` holds; a byte more than `most` at the very most.

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
        """Raise BadRequest where more had to come."""
        if self._inner is not None and not self._inner.eof:
            raise BadRequest(f"the body breaks off within its {self._coding}")


def undoing(coding: str | None) -> Inflate | None:
    """Return what undoes a body's coding, None where it has none."""
    name = (coding or "").strip().lower().removeprefix("x-")
    if name in {"", "identity"}:
        return None
    if name not in CODINGS:
        raise UnsupportedCoding(name, CODINGS)
    return Inflate(name)
