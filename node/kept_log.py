"""Kept log: the latest log lines of this process, in memory, for balancers."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager

from edgeserve.orders.log import LogLine, NodeLog, since
from edgeserve.runtime import log

KEPT = 500
"""Lines that are kept."""

WIDEST = 500
"""Characters kept of a line."""

OF_ONE = 40
"""Lines kept of one message; of a longer traceback, the last ones tell most."""


class KeptLog(logging.Handler):
    """Keeps what is logged; `instance` names the process. It costs memory only."""

    def __init__(self, instance: str, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._instance, self._clock = instance, clock
        self._lines = deque[LogLine](maxlen=KEPT)
        self._logged = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one message; called with the handler's lock held."""
        try:
            text = self.format(record)
        except Exception:  # noqa: BLE001 - as in logging: no log line ends its caller
            self.handleError(record)
            return
        self._keep(record.created, record.levelname.lower(), record.name, text)

    def say(self, text: str) -> None:
        """Print a line for the person at the terminal, and keep it."""
        log.say(text)
        with self._locked():
            self._keep(self._clock(), "info", "node", text)

    def _keep(self, at: float, level: str, source: str, text: str) -> None:
        for line in text.splitlines()[-OF_ONE:]:
            kept = LogLine(at=at, level=level, source=source, text=line[:WIDEST])
            self._lines.append(kept)
            self._logged += 1

    def since(self, after: str = "") -> NodeLog:
        """Return the lines after an earlier answer; see `orders.log.since`."""
        with self._locked():
            kept, logged = tuple(self._lines), self._logged
        return since(after, self._instance, kept, logged)

    @contextmanager
    def _locked(self) -> Generator[None]:
        """Hold the lock: threads log, too."""
        self.acquire()
        try:
            yield
        finally:
            self.release()


@contextmanager
def keeping(instance: str) -> Generator[KeptLog]:
    """Keep what this process logs for the length of the block."""
    kept, root = KeptLog(instance), logging.getLogger()
    root.addHandler(kept)
    try:
        yield kept
    finally:
        root.removeHandler(kept)
        kept.close()
