"""Change log: whose costs may have changed since the last look. Pure."""

from __future__ import annotations


class ChangeLog:
    """The engines whose costs may have changed, by rounds, as far back as is kept.

    A round ends when it is read, and has each engine once: so the log of a small fleet,
    which is never read, does not grow.
    """

    KEPT = 1024

    def __init__(self) -> None:
        self._rounds: list[set[object]] = []
        self._dropped = 0
        self._begin()

    def _begin(self) -> None:
        self._round = set[object]()
        self.note = self._round.add

    @property
    def position(self) -> int:
        """The number of the round that is not over."""
        return self._dropped + len(self._rounds)

    def since(self, position: int) -> set[object] | None:
        """Return what came since that round began; None where that is not known."""
        self._round.discard(None)  # a slot without an engine
        if self._round:
            self._rounds.append(self._round)
            self._begin()
        if position < self._dropped:
            return None
        found = set[object]().union(*self._rounds[position - self._dropped :])
        if len(self._rounds) > self.KEPT:
            self._dropped += len(self._rounds)
            self._rounds.clear()
        return found

    def forget(self, engine: object) -> None:
        """Drop an engine that left."""
        self._round.discard(engine)
