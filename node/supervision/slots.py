"""Slots: how many requests one engine serves at this moment. Pure."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from edgeserve.errors import FleetBusy
from node.supervision.turns import Turns

RETRY_AFTER = 1
"""Seconds after which a refused client may try again: slots are soon free."""


class SlotClaim:
    """One claim; `left`: its client is gone while the engine may still work on it."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = False


class Slots:
    """An engine's slots; `changed` is called at every claim and release.

    `left` of the `busy` ones have lost their client: the engine notices that only after
    its decode call, and until then a new request would wait behind them.
    """

    def __init__(
        self,
        total: int,
        changed: Callable[[], None],
        clock: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._changed = changed
        self._clock = clock
        self.turns = Turns()
        self.total = total
        self.busy = 0
        self.left = 0

    @property
    def full(self) -> bool:
        """Whether nothing more can be claimed."""
        return self.busy >= self.total

    @property
    def attended(self) -> int:
        """How many have a client."""
        return self.busy - self.left

    @contextmanager
    def claim(self, by: str = "", *, beside: bool = False) -> Generator[SlotClaim]:
        """Hold one slot; it is free again however the block ends. Raises FleetBusy.

        `by` is the balancer that asks; others may have to be first.

        If it ends with `left` set, the slot stays busy until it is `freed`. Work
        `beside` the slots takes none.
        """
        if beside:
            yield SlotClaim()
            return
        if self.full:
            raise FleetBusy(RETRY_AFTER, f"all {self.total} slots are busy")
        if not self.turns.allow(by, self.total - self.busy, self._clock()):
            raise FleetBusy(RETRY_AFTER, "it is another balancer's turn")
        self.turns.take(by)
        self.busy += 1
        if self.full:
            self.turns.all_taken()
        self._changed()
        claim = SlotClaim()
        try:
            yield claim
        finally:
            self.turns.give_back(by)
            if claim.left:
                self.left += 1
            else:
                self.busy -= 1
            self._changed()

    def waits(self, by: str, requests: int) -> None:
        """Take in how many requests of a balancer wait for a slot here."""
        self.turns.waits(by, requests, self._clock())

    def freed(self, requests: float = 0) -> None:
        """Take in how many requests the engine has; more abandoned ones are over."""
        over = self.left - max(0, int(requests) - self.attended)
        if over > 0:
            self.left -= over
            self.busy -= over
            self._changed()
