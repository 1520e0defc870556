"""When to start a failed engine again, and when to give up. Pure."""

from __future__ import annotations

from dataclasses import dataclass

FIRST, LONGEST = 1.0, 30.0
"""Seconds between restarts: 1, 2, 4, … at most 30."""

WINDOW = 300.0
LIMIT = 4
"""This many failures within the window, in seconds, and the engine is quarantined."""

SOUND_SECONDS = 60.0
"""Ready for this long, an engine has proved itself: earlier failures count no more."""


@dataclass(frozen=True)
class Failures:
    """The failures since the engine last proved itself, as clock readings."""

    times: tuple[float, ...] = ()

    def after(self, now: float, *, ready_seconds: float) -> Failures:
        """Add one, of an engine that had been ready for so long."""
        earlier = () if ready_seconds >= SOUND_SECONDS else self.times
        return Failures((*(t for t in earlier if now - t < WINDOW), now))

    @property
    def delay(self) -> float:
        """Seconds to wait before the next start."""
        return min(FIRST * 2.0 ** (len(self.times) - 1), LONGEST)

    @property
    def hopeless(self) -> bool:
        """Whether starting again is no use until something changes."""
        return len(self.times) >= LIMIT
