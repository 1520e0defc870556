"""What a node would run: the engine it finds, its GPUs, and the plan for them.

Starts short-lived processes and reads model files: call it off the event loop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgeserve.config import NodeSettings
from edgeserve.errors import CommandError
from edgeserve.wire import Hardware
from node.engines.choose import find_engine
from node.engines.devices import devices_of, fitted
from node.engines.protocol import Engine, EngineSpec
from node.offload import Device, applied
from node.specs import Plan, plan
from node.tune.result import Tunings, fingerprint
from node.tune.store import load


@dataclass(frozen=True)
class Prepared:
    """Everything that is decided before an engine starts; no engine, no plan."""

    engine: Engine | None
    devices: tuple[Device, ...]
    plan: Plan


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
        return Prepared(engine, devices, offloaded(engine, planned, settings))
    except CommandError as error:
        return Prepared(None, (), Plan(problems=(str(error),)))


def tunings_of(
    engine: Engine,
    hardware: Hardware,
    devices: tuple[Device, ...],
    settings: NodeSettings,
) -> Tunings:
    """Return what was tuned on this machine with this engine."""
    machine = fingerprint(hardware, devices, apart=settings.per_gpu)
    name = f"{engine.kind} {engine.build}"
    return load(settings.state_dir, machine=machine, engine=name)


def offloaded(engine: Engine, planned: Plan, settings: NodeSettings) -> Plan:
    """Let llama.cpp's own fit tool say how many layers its GPUs hold, if nobody has.

    It knows compute buffers to the byte, which our own estimate cannot.
    """
    said = settings.gpu_layers != "auto" or settings.tensor_split
    if said or settings.experts_on_cpu:
        return planned
    engines = (
        replace(each, spec=_offloaded(engine, each.spec)) for each in planned.engines
    )
    return replace(planned, engines=tuple(engines))


def _offloaded(engine: Engine, spec: EngineSpec) -> EngineSpec:
    if not spec.launch.gpu_layers:
        return spec
    offload = fitted(engine, spec)
    return replace(spec, launch=applied(spec.launch, offload)) if offload else spec
