"""Preparation: find the engine and its GPUs, make the plan and its fallbacks.

Starts short-lived processes, reads and writes files: call it off the event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec

from edgeserve.config.settings import NodeSettings
from edgeserve.errors import CommandError, EngineUnavailable
from edgeserve.reports.hardware import Hardware
from edgeserve.wire import Expected
from node.engines import crashes
from node.engines.base import Engine, EngineSpec
from node.engines.bundled import bundled
from node.engines.devices import Device, devices_of, offloaded
from node.engines.find import find_engine
from node.planning.expected_speed import expected, expected_reading
from node.planning.fit import Fitted, Room, fit
from node.planning.plan import Beside, Plan, plan
from node.planning.planner import PlannedEngine
from node.planning.tunings import Result, Tunings, save, tunings_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FallbackEngines:
    """The fallbacks of one planned engine. See `supervision.fallbacks.Fallbacks`.

    `room` is what is left for it beside all others. `falls_back`: the settings name no
    engine, so another one may serve.
    """

    planned: PlannedEngine
    engine: Engine
    settings: NodeSettings
    hardware: Hardware
    room: Room
    falls_back: bool

    @property
    def about(self) -> crashes.About | None:
        """The key of a crash record; None where no other engine would serve."""
        spec = self.planned.spec
        return crashes.about(self.engine, spec) if self.falls_back else None

    @property
    def is_tuned(self) -> bool:
        """Whether it starts with tuned settings."""
        return self.planned.fitted.tuned

    def untuned(self) -> EngineSpec | None:
        """Return the launch without tuned settings; None where that does not fit."""
        spec = self.planned.spec
        fitted = fit(self.planned.load, self.settings, self.room)
        if not isinstance(fitted, Fitted):
            return None
        launch = msgspec.structs.replace(fitted.launch, devices=spec.launch.devices)
        return offloaded(self.engine, replace(spec, launch=launch), self.settings)

    def bundled(self, *, tuned: bool = False) -> tuple[Engine, PlannedEngine]:
        """Return the bundled engine and its plan for the model.

        `tuned`: with the settings tuned for it. Raises EngineUnavailable.
        """
        engine = bundled()
        spec, facts, tuning = self.planned.spec, self.planned.load.facts, None
        if tuned:
            tunings = tunings_of(engine, self.hardware, (), self.settings)
            tuning = tunings.find(spec.variant, facts.file_bytes, spec.role)
        on_cpu = replace(self.settings, gpu_layers="0", tensor_split="")
        room = replace(self.room, gpu_memory=0)
        fitted = fit(self.planned.load, on_cpu, room, tuning.usable if tuning else None)
        if not isinstance(fitted, Fitted):
            raise EngineUnavailable(
                f"the bundled engine cannot serve it: {fitted.reason}"
            )
        if tuning:
            figures = tuning.figures(fitted.launch)
            expects = Expected(read=figures.prefill, write=figures.decode)
        else:
            run = (facts, fitted, self.hardware, ())
            expects = Expected(read=expected_reading(*run), write=expected(*run))
        spec = replace(spec, launch=fitted.launch, expected=expects)
        return engine, replace(
            self.planned, spec=spec, fitted=fitted, speed=expects.write, tuning=tuning
        )

    def tuning_failed(self, why: str) -> None:
        """Mark the tuning as failed; it is not used again. Raises OSError."""
        if self.planned.tuning is not None:
            failed: Result = msgspec.structs.replace(self.planned.tuning, failed=why)
            save(self.settings.state_dir, failed)

    def crashed(self, why: str) -> str | None:
        """Record that llama-server crashed with this model; returns a sentence."""
        key, spec = self.about, self.planned.spec
        if key is None:
            return None
        on_gpu = spec.launch.gpu_layers != 0
        where = self.settings.state_dir
        return crashes.record(where, key, why, on_gpu=on_gpu).sentence


def room_beside(planned: PlannedEngine, engines: Sequence[PlannedEngine]) -> Room:
    """Return the room of one planned engine while all others run. Pure."""
    later = engines[engines.index(planned) + 1 :]
    gpus = planned.spec.launch.devices
    beside = [each for each in later if each.spec.launch.devices == gpus]
    return planned.room.without(
        sum(each.fitted.memory for each in later),
        sum(each.fitted.gpu_memory for each in beside),
    )


@dataclass(frozen=True)
class Prepared:
    """Everything that is decided before an engine starts; without engine, no plan."""

    engine: Engine | None
    devices: tuple[Device, ...]
    plan: Plan

    def engine_of(self, planned: PlannedEngine) -> Engine:
        """Return the engine that runs a planned engine."""
        engine = planned.engine or self.engine
        assert engine is not None  # noqa: S101 - without one there is no plan
        return engine


def prepared(
    settings: NodeSettings,
    hardware: Hardware,
    *,
    untuned: bool = False,
    beside: Beside | None = None,
) -> Prepared:
    """Find the engine and plan for it; a node without either still runs.

    With `untuned`, tuned settings are left out.
    """
    try:
        engine = find_engine(settings)
        devices = devices_of(engine)
    except CommandError as error:
        return Prepared(None, (), Plan(problems=(str(error),)))
    found = Prepared(engine, devices, Plan())
    return extended(found, settings, hardware, beside or Beside(), untuned=untuned)


def extended(
    found: Prepared,
    settings: NodeSettings,
    hardware: Hardware,
    beside: Beside,
    *,
    untuned: bool = False,
) -> Prepared:
    """Plan again with the same engine and GPUs, beside what runs.

    `hardware` has the memory that would be free without our engines, and so have the
    GPUs.
    """
    engine, devices = found.engine, found.devices
    if engine is None:
        return prepared(settings, hardware, untuned=untuned, beside=beside)
    try:
        tunings = tunings_of(engine, hardware, devices, settings)
        known = Tunings() if untuned else tunings
        made = plan(settings, hardware, devices, known, beside)
    except CommandError as error:
        return replace(found, plan=Plan(beside.kept, (str(error),)))
    engines = tuple(
        each
        if each in beside.kept
        else replace(each, spec=offloaded(engine, each.spec, settings))
        for each in made.engines
    )
    again = replace(found, plan=replace(made, engines=engines))
    replaced = tuple(
        each
        if each in beside.kept
        else _replaced(again, each, settings, hardware, untuned=untuned)
        for each in engines
    )
    return replace(again, plan=replace(made, engines=replaced))


def finished(
    found: Prepared,
    kept: tuple[PlannedEngine, ...],
    planned: PlannedEngine,
    settings: NodeSettings,
    hardware: Hardware,
) -> tuple[Prepared, PlannedEngine]:
    """Complete the plan of one more engine beside those that run."""
    engine = found.engine_of(planned)
    planned = replace(planned, spec=offloaded(engine, planned.spec, settings))
    again = replace(found, plan=replace(found.plan, engines=(*kept, planned)))
    planned = _replaced(again, planned, settings, hardware, untuned=False)
    return replace(again, plan=replace(again.plan, engines=(*kept, planned))), planned


def fallbacks_of(
    found: Prepared, planned: PlannedEngine, settings: NodeSettings, hardware: Hardware
) -> FallbackEngines:
    """Return the fallbacks of a planned engine."""
    engine = found.engine_of(planned)
    unnamed = settings.engine == "auto" and settings.llama_server is None
    return FallbackEngines(
        planned=planned,
        engine=engine,
        settings=settings,
        hardware=hardware,
        room=room_beside(planned, found.plan.engines),
        # An engine on each GPU would become as many on one processor.
        falls_back=unnamed and engine.kind == "native" and not settings.per_gpu,
    )


def _replaced(
    found: Prepared,
    planned: PlannedEngine,
    settings: NodeSettings,
    hardware: Hardware,
    *,
    untuned: bool,
) -> PlannedEngine:
    """Let the bundled engine serve what llama-server is known to crash with."""
    fallbacks = fallbacks_of(found, planned, settings, hardware)
    crash = crashes.find(settings.state_dir, fallbacks.about)
    if crash is None:
        return planned
    try:
        engine, other = fallbacks.bundled(tuned=not untuned)
    except CommandError as error:
        log.warning("%s: %s; trying again", crash.sentence, error)
        return planned
    return replace(other, engine=engine, instead=crash.sentence)
