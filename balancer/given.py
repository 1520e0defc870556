"""What a client has been given of one answer, so that another engine can go on."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

MOST = 4 * 2**20
"""Bytes of events; past it an answer that breaks off cannot go on."""

LOOSE = 16384
"""Bytes kept as they are; events repeat themselves, packed they take a twentieth."""


@dataclass(slots=True)
class Given:
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
