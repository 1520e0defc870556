"""Count the requests an engine is serving. Pure: no waiting, no clock."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from edgeserve.errors import FleetBusy

RETRY_AFTER = 1
"""Seconds after which a refused caller may try again: slots turn over quickly."""


class Slots:
    """An engine's slots; `changed` is called at every claim and release."""

    def __init__(self, total: int, changed: Callable[[], None]) -> None:
        self._changed = changed
        self.total = total
        self.busy = 0

    @property
    def full(self) -> bool:
        """Whether nothing more can be claimed."""
        return self.busy >= self.total

    @contextmanager
    def claim(self) -> Generator[None]:
        """Hold one slot; it comes back however the block ends. Raises FleetBusy."""
        if self.full:
            raise FleetBusy(RETRY_AFTER, f"all {self.total} slots are busy")
        self.busy += 1
        self._changed()
        try:
            yield
        finally:
            self.busy -= 1
            self._changed()
