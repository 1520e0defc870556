"""How much extra work failures may make: a share of what is in flight. Bookkeeping.

Without a bound, a fleet in trouble would be asked everything twice. Beyond the budget a
request that is merely late stays where it is. One that has failed is asked again: its
first attempt is over, so that it adds nothing to the load.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager


class Budget:
    """Counts requests in flight, and the extra attempts among them."""

    def __init__(self, share: float = 0.10, least: int = 3) -> None:
        self._share = share
        self._least = least
        self.in_flight = 0
        self.extra = 0

    @property
    def allowed(self) -> int:
        """How many extra attempts may be under way at once."""
        return max(self._least, int(self.in_flight * self._share))

    @property
    def left(self) -> int:
        """How many more may begin now."""
        return max(0, self.allowed - self.extra)

    @contextmanager
    def request(self) -> Generator[None]:
        """Count one client's request as in flight."""
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    @contextmanager
    def another(self) -> Generator[bool]:
        """Count a further attempt, if the block is given True."""
        granted = self.left > 0
        self.extra += granted
        try:
            yield granted
        finally:
            self.extra -= granted
