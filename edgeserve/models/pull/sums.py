"""Sums: the checksums of a file, computed in one reading."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeserve.orders.pulls import PIECE

READ = 2**20
"""Bytes that are read at once. A divisor of `PIECE`."""


@dataclass(frozen=True)
class Sums:
    """The SHA-256 of a file, and the CRC-32 of each piece of it."""

    sha256: str = ""
    pieces: tuple[int, ...] = ()


class Summing:
    """Computes the sums of bytes that come in order."""

    def __init__(self) -> None:
        self.done = 0
        self._digest = hashlib.sha256()
        self._pieces: list[int] = []

    def add(self, data: bytes) -> None:
        """Take the next bytes, at most up to the end of a piece."""
        begun = self._pieces.pop() if self.done % PIECE else 0
        self.add_piece(data, zlib.crc32(data, begun))

    def add_piece(self, data: bytes, checksum: int) -> None:
        """Take the next bytes; `checksum` is that of their piece so far."""
        self._digest.update(data)
        self._pieces.append(checksum)
        self.done += len(data)

    @property
    def sums(self) -> Sums:
        """The sums of what has come."""
        return Sums(self._digest.hexdigest(), tuple(self._pieces))


def sums_of(path: Path, progress: Callable[[int], None]) -> Sums:
    """Read a file; `progress` gets the bytes read so far, and may raise."""
    summing = Summing()
    with path.open("rb") as content:
        while data := content.read(READ):
            summing.add(data)
            progress(summing.done)
    return summing.sums
