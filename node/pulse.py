"""Is an engine's process at work at all? Tells a frozen one from a slow one. Pure.

A slow engine, or one that others leave no processor, still uses some of its own; one
that waits for a disk is let be, and so is one under a debugger. What is left is a
process that is stopped, or that does nothing and does not answer while it has work.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeserve.wire import Ended

STOPPED_LOOKS = 2
SILENT_LOOKS = 6
"""So many looks in a row without a sign of life, and it is taken for dead. That one is
stopped the system says; that one is silent may be the fault of who asks."""

STOPPED = "its process is stopped"
SILENT = "its process does nothing and does not answer"


@dataclass(frozen=True)
class Look:
    """What the system says of a process; `cpu` is what it has used, in seconds.

    `memory` is what it holds, in bytes.
    """

    cpu: float
    stopped: bool = False
    excused: bool = False
    """Whether something else explains that it does nothing."""
    memory: int = 0


@dataclass(frozen=True)
class Pulse:
    """The latest look, and how many in a row showed no life.

    One that is stopped again and again, to slow it down, uses some processor.
    """

    latest: Look
    missed: int = 0

    def idles(self, look: Look) -> bool:
        """Whether it has done nothing since, for which there is no excuse."""
        return self._rests(look) and not (look.stopped or look.excused)

    def seen(self, look: Look, *, silent: bool) -> Pulse:
        """Take in a look; `silent`: it had work, did nothing, and gave no answer."""
        stopped = look.stopped and self._rests(look)
        dead = stopped or (silent and self.idles(look))
        return Pulse(look, self.missed + 1 if dead else 0)

    def _rests(self, look: Look) -> bool:
        return look.cpu <= self.latest.cpu

    @property
    def ended(self) -> Ended:
        """Whether somebody else has brought that about."""
        return "killed" if self.latest.stopped else "died"

    @property
    def lost(self) -> str | None:
        """What is wrong with it, if it is to be given up."""
        if self.latest.stopped:
            return STOPPED if self.missed >= STOPPED_LOOKS else None
        return SILENT if self.missed >= SILENT_LOOKS else None
