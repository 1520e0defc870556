"""Plan: from settings, files and memory to the engines that will run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from edgeserve.config.settings import NodeSettings
from edgeserve.reports.hardware import Hardware
from edgeserve.wire import AvailableModel
from node.engines.devices import Device
from node.models.library import Model
from node.models.selection import RequestedModel, Wishes, requested_models
from node.planning.absent import AbsentEngines, absent_engines
from node.planning.available import available
from node.planning.planner import PlannedEngine, Planner
from node.planning.tunings import Tunings


@dataclass(frozen=True)
class Plan:
    """The engines to run, and a sentence for each model that cannot be served.

    `models` are all that were found; `available` are those without an engine. `absent`
    are engines that run if they are asked for; `others` is what they serve. `denied`
    are variants that the settings name, but that are forbidden.
    """

    engines: tuple[PlannedEngine, ...] = ()
    problems: tuple[str, ...] = ()
    models: tuple[Model, ...] = ()
    available: tuple[AvailableModel, ...] = ()
    absent: tuple[PlannedEngine, ...] = ()
    others: tuple[RequestedModel, ...] = ()
    denied: tuple[str, ...] = ()


@dataclass(frozen=True)
class Beside:
    """What a plan is made beside: engines that run, and files that are arriving.

    `resting` engines are not started by themselves.
    """

    kept: tuple[PlannedEngine, ...] = ()
    arriving: frozenset[Path] = frozenset()
    resting: frozenset[str] = frozenset()
    wishes: Wishes = field(default_factory=Wishes)


def plan(
    settings: NodeSettings,
    hardware: Hardware,
    devices: Iterable[Device] = (),
    tunings: Tunings | None = None,
    shelf: Beside | None = None,
) -> Plan:
    """Decide what to serve; `devices` are the GPUs that the engine can use.

    What runs already stays as it is; files that are arriving are left alone.
    Reads files, so call it off the event loop. A model never makes it raise.
    """
    shelf = shelf or Beside()
    requested = requested_models(settings, shelf.arriving, shelf.wishes)
    new = partial(
        Planner,
        settings,
        hardware,
        tuple(devices),
        tunings or Tunings(),
        models=requested.library.models,
    )
    planner = new(resting=shelf.resting)
    planner.keep(shelf.kept)
    for request in requested.models:
        planner.place(request)
    engines = tuple(planner.engines.values())
    others = tuple(requested.others)
    resting = absent_engines(new, engines, others, shelf.wishes)
    there = [each for request in requested.models for each in request.models]
    models = {each.path: each for each in (*requested.library.models, *there)}
    shown = resting if settings.on_demand else AbsentEngines()
    problems = (*requested.problems, *_problems(planner, shown))
    refused = {**planner.refused, **shown.refused}
    served = (*engines, *shown.engines)
    return Plan(
        engines,
        tuple(dict.fromkeys(problems)),
        tuple(models.values()),
        tuple(
            available(
                models.values(),
                served,
                refused,
                forbidden=_forbidden(models.values(), shelf.wishes),
                unloaded=shelf.resting,
            )
        ),
        _marked(resting.engines, engines, requested.models),
        others,
        requested.denied,
    )


def _forbidden(models: Iterable[Model], wishes: Wishes) -> frozenset[str]:
    return frozenset(m.variant for m in models if wishes.forbids(m.model, m.variant))


def _marked(
    absent: Sequence[PlannedEngine],
    engines: Iterable[PlannedEngine],
    requests: Iterable[RequestedModel],
) -> tuple[PlannedEngine, ...]:
    """Mark what is named and has no room yet; of each model, the best variant."""
    named = {(each.spec.model, each.spec.role) for each in engines}
    best = set[str]()
    for request in (each for each in requests if each.named):
        if request.logical and (request.name, request.role) in named:
            continue
        paths = {each.path for each in request.models}
        able = [
            e for e in absent if e.spec.path in paths and e.spec.role == request.role
        ]
        if able:
            most = max(able, key=lambda each: (each.whole, each.fitted.need.total))
            best.add(most.spec.id)
    return tuple(replace(e, pinned=True) if e.spec.id in best else e for e in absent)


def _problems(planner: Planner, shown: AbsentEngines) -> Iterator[str]:
    """Yield what is in the way, but not of what runs if it is asked for."""
    told = {f"{path}: {why}": path for path, why in planner.refused.items()}
    absent = {each.spec.path for each in shown.engines}
    for each in planner.problems:
        path = told.get(each)
        if path is None or path not in absent:
            yield (
                f"{path}: {shown.refused.get(path, planner.refused[path])}"
                if path
                else each
            )
