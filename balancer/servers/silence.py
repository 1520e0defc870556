"""Server silence: whether a server that answers no look is lost, or at work. Pure.

Some servers compute in the loop that also answers: while one reads a long prompt, it
answers nothing else. A request of ours that is open there since before, or an answer
that begins meanwhile, shows that it is alive. A request that hangs is ended by its own
watchdog, and shows nothing from then on.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet


class Silence:
    """The silence of one server, if there is one.

    `_open`: requests that are open since before it began. `_answered`: how many answers
    had begun then.
    """

    def __init__(self) -> None:
        self._began = False
        self._open = frozenset[object]()
        self._answered = 0

    def look(self, open_: AbstractSet[object], answered: int) -> None:
        """Begin to look at a server that has these requests."""
        if not self._began:
            self._began = True
            self._open, self._answered = frozenset(open_), answered

    def excused(self, open_: AbstractSet[object], answered: int) -> bool:
        """Whether a look that got no answer shows nothing, with these requests now."""
        if answered != self._answered:
            self._open, self._answered = frozenset(open_), answered
            return True
        self._open &= open_
        return bool(self._open)

    def end(self) -> None:
        """Note an answer, or another reason to call it lost."""
        self._began = False
