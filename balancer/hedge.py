"""When a request that does not begin should be asked of a second engine too. Pure.

Only where nothing shows that the first is at work: a slow machine that reports progress
is slow, not dead, and a second prefill elsewhere would be wasted on it.
"""

from __future__ import annotations

from dataclasses import dataclass

PATIENCE = 1.5
GRACE_SECONDS = 2.0
GAIN = 0.3
"""How much sooner, as a share, the other engine has to be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A request that was sent to an engine. Times in seconds.

    `predicted` from sending to the first token; `remaining` until its first token, as
    predicted now; `progressed` whether the engine has shown work on it since.
    """

    started: float
    predicted: float
    remaining: float
    progressed: bool

    @property
    def late_at(self) -> float:
        """When to begin to think of a second engine."""
        return self.started + PATIENCE * self.predicted + GRACE_SECONDS


def should_hedge(
    running: Running, *, elsewhere: float | None, budget_left: int, now: float
) -> bool:
    """Whether to ask a second engine as well.

    `elsewhere`: seconds to the first token on the best engine with an idle slot, None
    where there is none.
    """
    if running.progressed or now <= running.late_at or budget_left < 1:
        return False
    return elsewhere is not None and elsewhere <= (1 - GAIN) * running.remaining
