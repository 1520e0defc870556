"""Memory: return it to the system after large bodies, free what errors hold."""

from __future__ import annotations

import asyncio
import ctypes
from contextlib import suppress

SECONDS = 1.0
"""From a call to the return of memory, which takes some milliseconds for all calls."""


class MemoryReturn:
    """Returns memory to the system soon, once for many calls.

    The pieces of a body lie between objects that live on, so that the heap stays large.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def soon(self) -> None:
        """Return memory after `SECONDS`."""
        if self._timer is None:
            self._timer = self._loop.call_later(SECONDS, self._now)

    def _now(self) -> None:
        self._timer = None
        with suppress(AttributeError, OSError, TypeError):  # not glibc
            ctypes.CDLL(None).malloc_trim(0)


def drop_tracebacks(error: BaseException | None) -> None:
    """Remove the traces of an error and of its causes.

    A trace holds every frame on the way, and a frame may hold the error. Without this,
    the objects of a failed request stay until the garbage collector runs.
    """
    while error is not None:
        error.__traceback__ = None
        before = error.__cause__ or error.__context__
        error.__cause__ = error.__context__ = None
        error = before
