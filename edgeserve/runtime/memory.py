"""Memory relief: give memory back to the system after large bodies.

The pieces in which bodies come lie among what lives on, and hold the heap up.
"""

from __future__ import annotations

import asyncio
import ctypes

SECONDS = 1.0
"""It takes some milliseconds, for all that came and went in the meantime."""


class Relief:
    """Gives memory back soon, and once for many calls."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def soon(self) -> None:
        """Do so a moment from now."""
        if self._timer is None:
            self._timer = self._loop.call_later(SECONDS, self._now)

    def _now(self) -> None:
        self._timer = None
        give_back()


def give_back() -> None:
    """Have the C library return what it holds and does not use, where it can."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # not glibc
        return
