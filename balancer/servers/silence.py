"""Server silence: whether a server that answers no look is lost, or at work. Pure.

Some servers compute in the loop that also answers: while one reads a long prompt, it
answers nothing else. An answer of it that is on its way since before, or one that
begins meanwhile, shows that it is alive. A request without an answer shows so for a
while only: a server that hangs has such requests, too.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

READING_LOOKS = 2
"""Looks without an answer that a request without one excuses."""


class Silence:
    """The silence of one server, if there is one.

    `_open`: requests that are open since before it began. `_answered`: how many answers
    had begun then. `_looks` without an answer since.
    """

    def __init__(self) -> None:
        self._began = False
        self._open = frozenset[object]()
        self._answered = self._looks = 0

    def look(self, open_: AbstractSet[object], answered: int) -> None:
        """Begin to look at a server that has these requests."""
        if not self._began:
            self._began, self._looks = True, 0
            self._open, self._answered = frozenset(open_), answered

    def excused(
        self, open_: AbstractSet[object], answered: int, begun: AbstractSet[object]
    ) -> bool:
        """Whether a look that got no answer shows nothing, with these requests now.

        `begun` are those of the open ones whose answers have begun.
        """
        self._looks += 1
        if answered != self._answered:
            self._open, self._answered, self._looks = frozenset(open_), answered, 0
            return True
        self._open &= open_
        if self._open & begun:
            return True
        return bool(self._open) and self._looks <= READING_LOOKS

    def end(self) -> None:
        """Note an answer, or another reason to call it lost."""
        self._began = False
