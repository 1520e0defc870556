"""Preparation: find the engine and its GPUs, make the plan and its fallbacks.

Starts short-lived processes and reads and writes files: call it off the event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from edgeserve.config.settings import NodeSettings
from edgeserve.errors import CommandError, EngineUnavailable
from edgeserve.wire import Expected, Hardware
from node.engines import crashes
from node.engines.base import Engine, EngineSpec
from node.engines.bundled import bundled
from node.engines.devices import Device, devices_of, offloaded
from node.engines.find import find_engine
from node.planning.expected_speed import expected, expected_reading
from node.planning.fit import Fitted, Room, fit
from node.planning.plan import Plan, PlannedEngine, plan
from node.planning.tunings import Result, Tunings, save, tunings_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FallbackEngines:
    """The ways out for one planned engine.

    `room` is what there is for it beside all others. `falls_back`: nobody has named an
    engine, so another one may serve.
    """

    placed: PlannedEngine
    engine: Engine
    settings: NodeSettings
    hardware: Hardware
    room: Room
    falls_back: bool

    @property
    def about(self) -> crashes.About | None:
        """What a crash of this engine would be about; None if no other would serve."""
        spec = self.placed.spec
        return crashes.about(self.engine, spec) if self.falls_back else None

    @property
    def is_tuned(self) -> bool:
        """Whether it starts with settings that a tuning has found."""
        return self.placed.fitted.tuned

    def untuned(self) -> EngineSpec | None:
        """Return the same without what was tuned; None where that does not fit."""
        spec = self.placed.spec
        fitted = fit(self.placed.load, self.settings, self.room)
        if not isinstance(fitted, Fitted):
            return None
        launch = msgspec.structs.replace(fitted.launch, devices=spec.launch.devices)
        return offloaded(self.engine, replace(spec, launch=launch), self.settings)

    def bundled(self, *, tuned: bool = False) -> tuple[Engine, PlannedEngine]:
        """Return the bundled engine, and how it would serve the model.

        `tuned`: with what was tuned for it. Raises EngineUnavailable.
        """
        engine = bundled()
        tuning = self._tuning_of(engine) if tuned else None
        on_cpu = replace(self.settings, gpu_layers="0", tensor_split="")
        room = replace(self.room, gpu_memory=0)
        fitted = fit(self.placed.load, on_cpu, room, tuning.usable if tuning else None)
        if not isinstance(fitted, Fitted):
            raise EngineUnavailable(f"the bundled engine cannot: {fitted.reason}")
        expects = self._expected(fitted, tuning)
        spec = replace(self.placed.spec, launch=fitted.launch, expected=expects)
        return engine, replace(
            self.placed, spec=spec, fitted=fitted, speed=expects.write, tuning=tuning
        )

    def _tuning_of(self, engine: Engine) -> Result | None:
        spec, facts = self.placed.spec, self.placed.load.facts
        tunings = tunings_of(engine, self.hardware, (), self.settings)
        return tunings.find(spec.variant, facts.file_bytes, spec.role)

    def _expected(self, fitted: Fitted, tuning: Result | None) -> Expected:
        if tuning:
            return Expected(read=tuning.used.prefill, write=tuning.used.decode)
        facts, here = self.placed.load.facts, self.hardware
        return Expected(
            read=expected_reading(facts, fitted, here, ()),
            write=expected(facts, fitted, here, ()),
        )

    def tuning_failed(self, why: str) -> None:
        """Mark the tuning, so that its settings are not used again. Raises OSError."""
        if self.placed.tuning is not None:
            failed: Result = msgspec.structs.replace(self.placed.tuning, failed=why)
            save(self.settings.state_dir, failed)

    def crashed(self, why: str) -> str | None:
        """Remember that llama-server crashed with this model; returns the sentence."""
        what, spec = self.about, self.placed.spec
        if what is None:
            return None
        on_gpu = spec.launch.gpu_layers != 0
        where = self.settings.state_dir
        return crashes.remember(where, what, why, on_gpu=on_gpu).said


def room_beside(placed: PlannedEngine, planned: Sequence[PlannedEngine]) -> Room:
    """Return what there is for one planned engine when all others run. Pure."""
    later = planned[planned.index(placed) + 1 :]
    gpus = placed.spec.launch.devices
    beside = [each for each in later if each.spec.launch.devices == gpus]
    return replace(
        placed.room,
        memory=placed.room.memory - sum(each.fitted.memory for each in later),
        gpu_memory=max(
            0,
            placed.room.gpu_memory - sum(each.fitted.gpu_memory for each in beside),
        ),
    )


@dataclass(frozen=True)
class Other:
    """Another engine than the node's usual one, and why, in a sentence."""

    engine: Engine
    why: str


@dataclass(frozen=True)
class Prepared:
    """Everything that is decided before an engine starts; no engine, no plan.

    `others` are the planned engines, by id, that the usual one cannot serve.
    """

    engine: Engine | None
    devices: tuple[Device, ...]
    plan: Plan
    others: Mapping[str, Other] = field(default_factory=dict[str, Other])

    def engine_of(self, placed: PlannedEngine) -> Engine:
        """Return what runs a planned engine."""
        other = self.others.get(placed.spec.id)
        engine = other.engine if other else self.engine
        assert engine is not None  # noqa: S101 - without one there is no plan
        return engine


def prepared(
    settings: NodeSettings, hardware: Hardware, *, untuned: bool = False
) -> Prepared:
    """Find the engine and plan for it; a node without either is still a node.

    With `untuned`, what tuning found is left out.
    """
    try:
        engine = find_engine(settings)
        devices = devices_of(engine)
        tunings = tunings_of(engine, hardware, devices, settings)
        known = Tunings() if untuned else tunings
        planned = plan(settings, hardware, devices, known)
    except CommandError as error:
        return Prepared(None, (), Plan(problems=(str(error),)))
    engines = tuple(
        replace(each, spec=offloaded(engine, each.spec, settings))
        for each in planned.engines
    )
    found = Prepared(engine, devices, replace(planned, engines=engines))
    return _sparing(found, settings, hardware, untuned=untuned)


def standby(
    found: Prepared, placed: PlannedEngine, settings: NodeSettings, hardware: Hardware
) -> FallbackEngines:
    """Return the ways out for a planned engine."""
    engine = found.engine_of(placed)
    unnamed = settings.engine == "auto" and settings.llama_server is None
    return FallbackEngines(
        placed=placed,
        engine=engine,
        settings=settings,
        hardware=hardware,
        room=room_beside(placed, found.plan.engines),
        # An engine on each GPU would become as many on one processor.
        falls_back=unnamed and engine.kind == "native" and not settings.per_gpu,
    )


def _sparing(
    found: Prepared, settings: NodeSettings, hardware: Hardware, *, untuned: bool
) -> Prepared:
    """Let the bundled engine serve what llama-server is known to crash with."""
    others: dict[str, Other] = {}
    engines: list[PlannedEngine] = []
    for placed in found.plan.engines:
        ways = standby(found, placed, settings, hardware)
        crash = crashes.find(settings.state_dir, ways.about) if ways.about else None
        if crash:
            try:
                engine, placed = ways.bundled(tuned=not untuned)
                others[placed.spec.id] = Other(engine, crash.said)
            except CommandError as error:
                log.warning("%s: %s; trying again", crash.said, error)
        engines.append(placed)
    planned = replace(found.plan, engines=tuple(engines))
    return replace(found, plan=planned, others=others)
