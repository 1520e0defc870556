"""Loading: how far a load is, and how many seconds it takes.

An estimate comes from the last load here, else from the size of the files.
"""

from __future__ import annotations

import time
from collections.abc import Callable

DISK = 300e6
"""Bytes a second of a cold read, where nothing was measured: an SSD at a small node."""

START_SECONDS = 1.0
"""Time beside reading: the process, its buffers, the first decode call."""

MOST_SHOWN = 0.95
"""The share that is shown until it is done, however long it takes."""

EVERY_SECONDS = 0.5
"""Progress is told this often."""


def estimate(file_bytes: int) -> float:
    """Return the seconds that files of this size take to load."""
    return START_SECONDS + file_bytes / DISK


class LoadProgress:
    """The progress of an engine's loads. `expected` is in seconds.

    `taken` is how long the last one took; `failed` is why the first one failed, after
    all fallbacks. `over` is called when a load has ended either way.
    """

    def __init__(
        self,
        expected: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        over: Callable[[], None] | None = None,
    ) -> None:
        self.taken: float | None = None
        self.failed: str | None = None
        self._over = over
        self._expected = expected
        self._clock = clock
        self._began: float | None = None
        self._told = 0.0

    @property
    def seconds(self) -> float:
        """How long the last load took, or how long one should take."""
        return round(self._expected if self.taken is None else self.taken, 3)

    @property
    def share(self) -> float | None:
        """The share that is done, 0 to 1; None while nothing loads."""
        if self._began is None:
            return None
        done = (self._clock() - self._began) / max(self.seconds, 0.001)
        return round(min(done, MOST_SHOWN), 2)

    def begin(self) -> None:
        """Note the start of a process."""
        self._began = self._told = self._clock()

    def end(self) -> None:
        """Note that the engine is ready."""
        if self._began is not None:
            self.taken = self._clock() - self._began
        self._began = self.failed = None
        self._tell()

    def stop(self) -> None:
        """Note that the process will not become ready, or is no longer."""
        self._began = None

    def fail(self, why: str) -> None:
        """Note that nothing helped."""
        if self.taken is None:
            self.failed = why
            self._tell()

    def _tell(self) -> None:
        if self._over is not None:
            self._over()

    def due(self) -> bool:
        """Whether progress is to be told again."""
        now = self._clock()
        if self._began is None or now - self._told < EVERY_SECONDS:
            return False
        self._told = now
        return True
