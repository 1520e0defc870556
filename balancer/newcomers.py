"""Engines that nobody has measured yet stand back while others serve. Pure.

What is believed of a newcomer comes from its hardware; it may be wrong by several
times. A probe puts that right within a second or so; a request that finds it out takes
as long as the machine is slow.
"""

from __future__ import annotations

from collections.abc import Iterable

from balancer.lane import Lane

FAR = 4.0
"""By so much must one that was not measured either look faster."""

SECONDS = 10.0
"""For so long at most; whoever could not be measured by then is what it looks like."""

UNMEASURED = "its speed is being measured"


def stands_back(lane: Lane, serving: Iterable[Lane]) -> bool:
    """Whether one that is not measured should leave requests to those who serve."""
    return any(
        other.model == lane.model and _serves_better(other, lane)
        for other in serving
        if other is not lane
    )


def _serves_better(other: Lane, lane: Lane) -> bool:
    if other.learner.calibrated:
        return other.per_read < FAR * lane.per_read
    return FAR * other.per_read <= lane.per_read
