"""What a node will run: its engine, its GPUs, and the plan for both.

Starts short-lived processes and reads model files: call it off the event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from edgeserve.config import NodeSettings
from edgeserve.errors import CommandError
from edgeserve.wire import Hardware
from node import crashes
from node.engines.choose import find_engine
from node.engines.devices import devices_of, offloaded
from node.engines.protocol import Engine
from node.offload import Device
from node.specs import Placed, Plan, plan
from node.standby import Standby, room_beside
from node.tune.result import Tunings
from node.tune.store import tunings_of

log = logging.getLogger(__name__)


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

    def engine_of(self, placed: Placed) -> Engine:
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
    found: Prepared, placed: Placed, settings: NodeSettings, hardware: Hardware
) -> Standby:
    """Return the ways out for a planned engine."""
    engine = found.engine_of(placed)
    unnamed = settings.engine == "auto" and settings.llama_server is None
    return Standby(
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
    engines: list[Placed] = []
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
