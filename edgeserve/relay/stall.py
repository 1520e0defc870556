"""Whether a client still takes what waits for it. Pure: the time is an argument."""

from __future__ import annotations


class Stall:
    """Follows a buffer that only its client empties."""

    __slots__ = ("_since", "_unsent")

    def __init__(self) -> None:
        self._unsent = 0
        self._since = 0.0

    def lasts(self, unsent: int, now: float, seconds: float) -> bool:
        """Whether the buffer has not moved for so many seconds."""
        if unsent != self._unsent:
            self._unsent, self._since = unsent, now
        return now - self._since >= seconds

    def end(self) -> None:
        """Note that the client is not being waited for."""
        self._unsent = 0
