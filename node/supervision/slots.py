"""Slots: how many requests one engine serves now. Pure."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from edgeserve.errors import FleetBusy

RETRY_AFTER = 1
"""Seconds after which a refused caller may try again: slots turn over quickly."""


class SlotClaim:
    """One claim; `left` once its caller is gone while the engine may be at work."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = False


class Slots:
    """An engine's slots; `changed` is called at every claim and release.

    `left` of the `busy` ones have lost their caller: the engine notices when its
    decode call is over, and until then whoever comes would wait behind them.
    """

    def __init__(self, total: int, changed: Callable[[], None]) -> None:
        self._changed = changed
        self.total = total
        self.busy = 0
        self.left = 0

    @property
    def full(self) -> bool:
        """Whether nothing more can be claimed."""
        return self.busy >= self.total

    @property
    def attended(self) -> int:
        """How many have a caller."""
        return self.busy - self.left

    @contextmanager
    def claim(self, *, beside: bool = False) -> Generator[SlotClaim]:
        """Hold one slot; it comes back however the block ends. Raises FleetBusy.

        Where it ends with `left` set, the slot stays busy until it is `freed`. What is
        computed `beside` them takes none.
        """
        if beside:
            yield SlotClaim()
            return
        if self.full:
            raise FleetBusy(RETRY_AFTER, f"all {self.total} slots are busy")
        self.busy += 1
        self._changed()
        held = SlotClaim()
        try:
            yield held
        finally:
            if held.left:
                self.left += 1
            else:
                self.busy -= 1
            self._changed()

    def freed(self, at_work: float = 0) -> None:
        """Take in how many requests the engine has: whoever left is none of them."""
        over = self.left - max(0, int(at_work) - self.attended)
        if over > 0:
            self.left -= over
            self.busy -= over
            self._changed()
