"""Planner: places one model after another in the memory that earlier ones left."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import msgspec

from edgeserve.config.settings import NodeSettings
from edgeserve.models.facts import ModelFacts
from edgeserve.models.memory import MIB, layered
from edgeserve.orders.groups import FormGroup, GroupMember
from edgeserve.reports.hardware import Hardware
from edgeserve.wire import Expected, Launch
from node.engines.base import Engine, EngineSpec, Role
from node.engines.devices import Device
from node.models.choice import Choice, Option, choose, divergence
from node.models.drafts import drafts_for
from node.models.library import Model
from node.models.selection import RequestedModel
from node.planning.expected_speed import expected, expected_reading
from node.planning.fit import LEAST_CONTEXT, SHARE, Fitted, Load, Refusal, Room, fit
from node.planning.places import Place, places_of
from node.planning.tunings import Result, Tuned, Tunings


@dataclass(frozen=True, kw_only=True)
class PlannedEngine:
    """An engine to run: its launch, and the room that it was fitted into.

    `speed` is the expected tokens/s of one stream; `chosen` is the reason for this
    variant; `tuning` is the result measured here. `engine` runs it in place of the
    node's usual one, for the reason `instead`. `pinned`: the settings name it. `whole`:
    neither its context nor its layers on GPUs were reduced for want of memory. `group`:
    it is the head of one, with these `members`.
    """

    spec: EngineSpec
    load: Load
    room: Room
    fitted: Fitted
    speed: float
    chosen: str = ""
    tuning: Result | None = None
    engine: Engine | None = None
    instead: str = ""
    pinned: bool = False
    whole: bool = True
    group: FormGroup | None = None
    members: tuple[GroupMember, ...] = ()


def own_gpus(launch: Launch) -> tuple[str, ...]:
    """Return the GPUs of this machine that a launch names; none for all of them."""
    return () if launch.workers else launch.devices


@dataclass(frozen=True)
class _Trial:
    """One variant in one place, as it would run; `whole`: without any reduction."""

    model: Model
    load: Load
    room: Room
    fitted: Fitted
    whole: bool
    speed: float
    reading: float
    tuning: Result | None


class Planner:
    """Places each requested model, in order, in the memory that earlier ones left."""

    def __init__(
        self,
        settings: NodeSettings,
        hardware: Hardware,
        devices: tuple[Device, ...],
        tunings: Tunings,
        resting: Collection[str] = (),
        models: Iterable[Model] = (),
    ) -> None:
        self.engines: dict[str, PlannedEngine] = {}
        self.problems: list[str] = []
        self.refused: dict[Path, str] = {}
        self._logical: set[tuple[str, Role]] = set()
        self._settings = settings
        self._hardware = hardware
        self._tunings = tunings
        self._resting = resting
        self._models = {each.variant: each for each in models}
        self._memory = hardware.memory.available
        self._allowed = settings.memory_mib * MIB if settings.memory_mib else None
        self._places = places_of(devices, settings, hardware.cpu.physical_cores)

    @property
    def room(self) -> Room:
        """What is left for one more engine, on all GPUs."""
        gpu = sum(each.gpu_memory for each in self._places if not each.chosen)
        return Room(cores=0, memory=self._memory, gpu_memory=gpu, allowed=self._allowed)

    def keep(self, kept: Iterable[PlannedEngine]) -> None:
        """Take engines that run as they are; none of them is moved or chosen anew."""
        for each in kept:
            self.engines[each.spec.id] = each
            self._logical.add((each.spec.model, each.spec.role))
            self._take(each.fitted)
            for place in self._places:
                if own_gpus(each.spec.launch) == place.chosen:
                    place.gpu_memory -= each.fitted.gpu_memory

    def short(self, planned: PlannedEngine) -> tuple[int, int]:
        """Return the bytes of main and GPU memory that are short for one more engine.

        Less than none where there is more than enough.
        """
        return self.lacks(planned.fitted, own_gpus(planned.spec.launch))

    def lacks(self, fitted: Fitted, gpus: tuple[str, ...] = ()) -> tuple[int, int]:
        """Return the same for any memory that is to be taken."""
        memory = ceil(fitted.memory / SHARE) - self._memory
        if self._allowed is not None:
            memory = max(memory, fitted.memory - self._allowed)
        there = [each.gpu_memory for each in self._places if each.chosen == gpus]
        gpu = ceil(fitted.gpu_memory / SHARE) - sum(there) if fitted.gpu_memory else 0
        return memory, gpu

    def place(self, request: RequestedModel) -> None:
        """Place a model wherever it shall run, or add a problem.

        Of the `resting` engines, only pinned ones are placed.
        """
        if request.logical and (request.name, request.role) in self._logical:
            return
        chosen = ""
        for place in self._places:
            if self._is_placed(request, place):
                continue
            trials = self._trials(request, place)
            if request.logical and trials:
                choice = self._chosen(request, trials)
                if choice is None:
                    return
                chosen = choice.why
                trials = [t for t in trials if t.model.variant == choice.variant]
                models = tuple(trial.model for trial in trials)
                request = replace(request, models=models, logical=False)
            for trial in trials:
                self._add(request, trial, place, chosen)

    def _is_placed(self, request: RequestedModel, place: Place) -> bool:
        """Whether it runs there already; another file of that name is a problem."""
        there = request.alone and self.engines.get(
            id_of(request.alone, request.role) + place.name
        )
        if not there or not request.alone:
            return False
        if there.spec.path != request.alone.path:
            why = f"{request.alone.path}: {there.spec.path} has the same name"
            self.problems.append(why)
        return True

    def _trials(self, request: RequestedModel, place: Place) -> list[_Trial]:
        """Fit each variant; if none can run, each is a problem."""
        room = Room(
            cores=place.cores,
            memory=self._memory,
            gpu_memory=place.gpu_memory,
            allowed=self._allowed,
        )
        found: list[_Trial] = []
        refused: list[str] = []
        for model in request.models:
            tuning = self._tunings.find(
                model.variant, model.facts.file_bytes, request.role
            )
            tuned = tuning.usable if tuning else None
            load = load_of(model, request.role, self._drafts(model, tuned))
            fitted = fit(load, self._settings, room, tuned)
            if isinstance(fitted, Refusal):
                refused.append(f"{model.path}: {fitted.reason}")
                self.refused[model.path] = fitted.reason
                continue
            run = (model.facts, fitted, self._hardware, place.devices)
            found.append(
                _Trial(
                    model=model,
                    load=load,
                    room=room,
                    fitted=fitted,
                    whole=_whole(model, fitted, self._settings, bool(place.devices)),
                    speed=expected(*run),
                    reading=expected_reading(*run),
                    tuning=tuning,
                )
            )
        self.problems += [] if found else refused
        return measured(found)

    def _drafts(self, model: Model, tuned: Tuned | None) -> dict[str, ModelFacts]:
        """Return the draft model that was tuned, where it is still there."""
        draft = self._models.get(tuned.draft) if tuned and tuned.draft else None
        return drafts_for(model, (draft,)) if draft else {}

    def _chosen(
        self, request: RequestedModel, trials: Sequence[_Trial]
    ) -> Choice | None:
        options = [_option(each) for each in trials]
        choice = choose(options, self._settings)
        if isinstance(choice, str):
            self.problems.append(f"{request.name}: {choice}")
            return None
        if choice.short:
            self.problems.append(f"{choice.variant} is {choice.why}")
        return choice

    def _add(
        self, request: RequestedModel, trial: _Trial, place: Place, chosen: str
    ) -> None:
        id_ = id_of(trial.model, request.role) + place.name
        if id_ in self._resting and not request.pinned:
            return
        if trial.tuning and (missing := trial.tuning.missing(trial.load.drafts)):
            self.problems.append(missing)
        self.engines[id_] = PlannedEngine(
            spec=_spec(id_, request.role, trial, place),
            load=trial.load,
            room=trial.room,
            fitted=trial.fitted,
            speed=trial.speed,
            chosen=chosen,
            tuning=trial.tuning,
            pinned=request.named,
            whole=trial.whole,
        )
        self._take(trial.fitted)
        place.gpu_memory -= trial.fitted.gpu_memory

    def _take(self, fitted: Fitted) -> None:
        self._memory -= fitted.memory
        if self._allowed is not None:
            self._allowed -= fitted.memory


def measured(trials: Iterable[_Trial]) -> list[_Trial]:
    """Replace expected speeds by measured ones, or correct them by other variants.

    The ratio of a variant's measured to its expected speed shows how far this machine
    differs from the expectation.
    """
    each = list(trials)
    found = [t.tuning.figures(t.fitted.launch) if t.tuning else None for t in each]
    pairs = list(zip(each, found, strict=True))
    ratios = [figures.decode / t.speed for t, figures in pairs if figures]
    ratio = sum(ratios) / len(ratios) if ratios else 1.0
    return [
        replace(t, speed=figures.decode, reading=figures.prefill)
        if figures
        else replace(t, speed=t.speed * ratio)
        for t, figures in pairs
    ]


def load_of(
    model: Model, role: Role, drafts: Mapping[str, ModelFacts] | None = None
) -> Load:
    """Return the load of a model; with its projector where it generates text."""
    beside = model.projector_bytes if role == "generate" else 0
    return Load(facts=model.facts, role=role, beside=beside, drafts=drafts or {})


def _whole(model: Model, fitted: Fitted, settings: NodeSettings, gpus: bool) -> bool:
    """Whether neither context nor GPU layers were reduced for want of memory."""
    least = min(settings.context or LEAST_CONTEXT, model.facts.context or LEAST_CONTEXT)
    all_on_gpu = settings.gpu_layers != "auto" or fitted.launch.gpu_layers < 0
    return fitted.launch.context >= least and (all_on_gpu or not gpus)


def _option(trial: _Trial) -> Option:
    return Option(
        variant=trial.model.variant,
        label=trial.model.label,
        speed=trial.speed,
        whole=trial.whole,
        bits=trial.model.facts.bits,
        divergence=divergence(trial.model.path),
    )


def id_of(model: Model, role: Role) -> str:
    """Return an engine's id, but for its place."""
    return model.variant + ("" if role == "generate" else f"#{role}")


def _spec(id_: str, role: Role, trial: _Trial, place: Place) -> EngineSpec:
    model = trial.model
    return EngineSpec(
        id=id_,
        model=model.model,
        variant=model.variant,
        path=model.path,
        role=role,
        abilities=model.abilities(role),
        launch=msgspec.structs.replace(trial.fitted.launch, devices=place.chosen),
        projector=model.projector if role == "generate" else None,
        pooling=model.pooling if role == "embeddings" else None,
        layers=model.facts.layers + 1,
        expected=Expected(read=trial.reading, write=trial.speed),
        memory=trial.fitted.need.total,
        created=model.written,
        layered=layered(model.facts) if role == "generate" else None,
        drafts={name: facts.path for name, facts in trial.load.drafts.items()},
    )
