"""A wall clock that is wrong, and jumps: Python imports this before anything else.

The file that FAKE_CLOCK names has the offset in seconds. Monotonic time is right, as it
is on a machine whose clock is set. Not libfaketime: 0.9.10 breaks absolute monotonic
sleeps, which Python 3.11 uses, and needs a library that few machines have.
"""

from __future__ import annotations

import datetime
import os
import time
from datetime import tzinfo
from pathlib import Path
from typing import Self

FILE = Path(os.environ["FAKE_CLOCK"])
LOOK_SECONDS = 0.05

_true_ns, _monotonic = time.time_ns, time.monotonic
_looked, _offset = 0.0, 0


def _time_ns() -> int:
    global _looked, _offset
    if _monotonic() - _looked > LOOK_SECONDS:
        _looked, _offset = _monotonic(), int(FILE.read_text()) * 10**9
    return _true_ns() + _offset


def _time() -> float:
    return _time_ns() / 1e9


class Datetime(datetime.datetime):
    """The class that reads the wrong clock."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        """Return the time that the machine believes it is."""
        return cls.fromtimestamp(_time(), tz)


time.time, time.time_ns = _time, _time_ns
datetime.datetime = Datetime  # type: ignore[misc] # what is imported later gets this one
