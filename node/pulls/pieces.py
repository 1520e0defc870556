"""Pieces: decides which peer sends which piece of a file. Pure.

`window` bounds how far ahead of what is written peers may be, and so the memory that is
used.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

LANES = 2
"""Requests to one peer at once: the next is on its way while one is answered."""

AHEAD = 3
"""Pieces in the window, for each request at once."""

P = TypeVar("P", bound=Hashable)


@dataclass
class PieceQueue:
    """The pieces of a file that are still to come, up to `count`."""

    count: int
    window: int
    written: int = 0
    """How many are written. They are written in order, so that an unfinished file is
    right as far as it goes."""
    _asked: dict[int, set[Hashable]] = field(default_factory=dict[int, set[Hashable]])
    _came: set[int] = field(default_factory=set[int])

    @property
    def over(self) -> bool:
        """Whether every piece is written."""
        return self.written >= self.count

    def choose(self, peer: Hashable) -> int | None:
        """Return the piece that a peer shall send next, or None for none now.

        Where nothing else is left in the window, that is the one that all others wait
        for: a faster peer need not wait for a slower one.
        """
        for number in range(self.written, min(self.written + self.window, self.count)):
            if number not in self._asked and number not in self._came:
                self._asked[number] = {peer}
                return number
        others = self._asked.get(self.written, set[Hashable]())
        if len(others) == 1 and peer not in others:
            others.add(peer)
            return self.written
        return None

    def failed(self, peer: Hashable, number: int) -> None:
        """Note that a peer does not send a piece: another one may."""
        if asked := self._asked.get(number):
            asked.discard(peer)
            if not asked:
                del self._asked[number]

    def came(self, number: int) -> bool:
        """Take a piece; False if it had come before."""
        self._asked.pop(number, None)
        if number in self._came or number < self.written:
            return False
        self._came.add(number)
        return True

    def rejected(self, number: int) -> None:
        """Note that a piece was damaged: it has to come again."""
        self._came.discard(number)

    def wrote(self, number: int) -> None:
        """Note that a piece, the next one, is written."""
        self._came.discard(number)
        self.written = number + 1


def largest_group(lists: Mapping[P, tuple[int, ...]]) -> list[P]:
    """Return the peers that say the same of a file's pieces: of several groups, most.

    Peers that disagree cannot all have the same file.
    """
    same = dict[tuple[int, ...], list[P]]()
    for peer, pieces in lists.items():
        same.setdefault(pieces, []).append(peer)
    return max(same.values(), key=len, default=[])
