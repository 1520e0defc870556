"""One engine's price for one request, in parts. Pure."""

from __future__ import annotations

import msgspec

from balancer.lane import Lane

OUT = -2
"""In the place of a slot: the engine was out of the race at once."""


class Parts(msgspec.Struct, frozen=True):
    """One engine's predicted seconds for one request, as `weights` explains them.

    `wait` for a slot, `ahead` for prompts that are being read there, `read` the prompt,
    `write` the answer; `cost` is the sum that decided. Where not `exact`, the engine
    was out of the race at once: `read` and `cost` are the least possible.
    """

    lane: Lane
    slot: int
    cached: float
    tokens: float
    wait: float
    ahead: float
    read: float
    write: float
    loss: float
    cost: float

    @property
    def exact(self) -> bool:
        """Whether all of it was looked at."""
        return self.slot != OUT

    @property
    def first(self) -> float:
        """Seconds from now to the first token."""
        return self.lane.speed.overhead + self.wait + self.ahead + self.read
