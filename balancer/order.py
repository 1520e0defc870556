"""Who goes first in the waiting room. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil

AGEING = 0.5
"""Seconds of prefill that a second of waiting makes up for."""

DEFICIT_FADE = 60.0


@dataclass(slots=True)
class Waiter:
    """What the order depends on. Seconds."""

    client: str
    arrived: float
    read: float
    """The shortest predicted prefill, over the engines."""


@dataclass(slots=True)
class Order:
    """Shortest prefill first, with ageing, and no client at the cost of the others."""

    served: dict[str, float] = field(default_factory=dict[str, float])

    def key(self, waiter: Waiter, now: float) -> float:
        """The lowest goes first."""
        return waiter.read - AGEING * (now - waiter.arrived)


def retry_after(seconds: float) -> int:
    """Whole seconds after which a place is predicted to be free."""
    return max(1, ceil(seconds))
