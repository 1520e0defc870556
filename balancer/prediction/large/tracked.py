"""Tracked engine: an engine model with the latest report of its engine. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from balancer.fleet.engines import EngineCandidate
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.learning import SpeedKey

WORK_LINGERS = 10.0
"""Seconds for which the load of a processor may still come from our own work."""

SHARED_SECONDS = 600.0
"""So long after work of another balancer was seen, engines choose their slots: two
requests that name the same slot would wait for each other."""


@dataclass(slots=True)
class TrackedEngine:
    """One engine as it was last reported."""

    engine_model: EngineModel
    key: SpeedKey
    incarnation: tuple[str, int]
    candidate: EngineCandidate
    usable_since: float = 0.0
    """Since when it can take requests."""
    worked_at: float = -WORK_LINGERS
    foreign: float = 0.0
    """The share of its processor that others use."""
    unknown_since: float | None = None
    """Since when slots are taken that this balancer did not take."""
    shared_at: float = -SHARED_SECONDS
    """When that last lasted longer than reports are late."""
    probe_place: int | None = None
    """The place of the slot that a probe uses."""
    abandoned: list[int] = field(default_factory=list[int])
    """Places of the slots that work for clients that left, the oldest first."""
