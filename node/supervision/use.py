"""Use: when an engine was ready, last asked and last saved. Times by its clock."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from math import inf

ASKED_SECONDS = 5.0
"""An engine that ends so soon after a request may have ended because of it: its
connection breaks before its process is seen to be gone."""


class EngineUse:
    """The times of one engine, over all its processes."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.ready_at: float | None = None
        self._asked_at = -inf
        self._saved_at = -inf
        self._saving = 0
        self._clock = clock

    def asked(self) -> None:
        """Note the begin or the end of a request."""
        self._asked_at = self._clock()

    def ready(self) -> None:
        """Note that a process is ready."""
        self.ready_at = self._clock()

    @contextmanager
    def saving(self) -> Generator[None]:
        """Note for the length of the block that what a slot holds is saved."""
        self._saving += 1
        try:
            yield
        finally:
            self._saving -= 1
            self._saved_at = self._clock()

    def unsaved_seconds(self, since: float) -> float:
        """How long nothing was saved, at most since then; 0 while something is."""
        now = self._clock()
        return 0.0 if self._saving else now - max(since, self._saved_at)

    @property
    def ready_seconds(self) -> float:
        """How long the process has been ready."""
        return 0.0 if self.ready_at is None else self._clock() - self.ready_at

    @property
    def just_asked(self) -> bool:
        """Whether there was a request a moment ago."""
        return self._clock() - self._asked_at < ASKED_SECONDS

    @property
    def never_asked(self) -> bool:
        """Whether there has been no request yet."""
        return self._asked_at == -inf

    @property
    def idle_seconds(self) -> float:
        """Time since its last request ended, or since it was ready."""
        since = max(self._asked_at, -inf if self.ready_at is None else self.ready_at)
        return 0.0 if since == -inf else self._clock() - since
