"""Absent engines: what could run here if it were asked for, though it does not run.

Each is planned by itself: beside all that runs where it fits there whole, else beside
the pinned engines only, as the others can leave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from node.models.selection import RequestedModel, Wishes
from node.planning.planner import PlannedEngine, Planner

NewPlanner = Callable[[], Planner]
"""Makes a planner with all memory free that no engine of ours has taken."""


@dataclass(frozen=True)
class AbsentEngines:
    """The engines, and why the rest could not even run beside the pinned ones."""

    engines: tuple[PlannedEngine, ...] = ()
    refused: dict[Path, str] = field(default_factory=dict[Path, str])


def absent_engines(
    new: NewPlanner,
    running: Sequence[PlannedEngine],
    requests: Iterable[RequestedModel],
    wishes: Wishes,
) -> AbsentEngines:
    """Plan what is requested and does not run, each as the only one to be loaded."""
    there = {each.spec.id for each in running}
    paths = {each.spec.path for each in running}
    names = {(each.spec.model, each.spec.role) for each in running}
    staying = pinned(running, wishes)
    found = dict[str, PlannedEngine]()
    refused = dict[Path, str]()
    for request in requests:
        if request.logical and (request.name, request.role) in names:
            continue
        alone = placed(new, staying, request)
        if paths.isdisjoint(each.path for each in request.models):
            refused |= alone.refused
        beside = placed(new, running, request).engines
        for id_, planned in alone.engines.items():
            if id_ not in there:
                found.setdefault(id_, whole(beside.get(id_)) or planned)
    return AbsentEngines(tuple(found.values()), refused)


def placed(
    new: NewPlanner, kept: Iterable[PlannedEngine], request: RequestedModel
) -> Planner:
    """Place one model beside some engines."""
    planner = new()
    planner.keep(kept)
    planner.place(request)
    return planner


def whole(planned: PlannedEngine | None) -> PlannedEngine | None:
    """Return an engine that was not reduced for want of memory."""
    return planned if planned and planned.whole else None


def pinned(
    engines: Iterable[PlannedEngine], wishes: Wishes
) -> tuple[PlannedEngine, ...]:
    """Return the engines that stay loaded."""
    return tuple(
        each
        for each in engines
        if each.pinned or wishes.pins(each.spec.model, each.spec.variant)
    )
