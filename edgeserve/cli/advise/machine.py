"""Machines to advise: this one, or the nodes of a fleet, as they report themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from edgeserve.config.settings import NodeSettings
from edgeserve.errors import CommandError
from edgeserve.reports.hardware import Gpu
from edgeserve.reports.hardware import Hardware as HardwareReport
from edgeserve.wire import NodeReport
from node.engines.base import Engine
from node.engines.devices import Device, devices_of
from node.engines.find import find_engine
from node.planning.tunings import Tunings, tunings_of

SMALLEST_GPU = 3 * 2**30
"""Bytes. Less is a part of a processor, whose share of the main memory is small."""

UNIFIED = 0.75
"""Share of its memory that macOS lets a GPU use."""


@dataclass(frozen=True, kw_only=True)
class AdvisedMachine:
    """A machine as a plan sees it. `name` is empty for this one.

    `kind` is that of its engine, `none` where none works. `devices` are the GPUs that
    it uses; with `builds`, those that an engine built there would use. `engine` is the
    one here, None where it is unknown.
    """

    hardware: HardwareReport
    name: str = ""
    kind: str = "bundled"
    build: str = ""
    devices: tuple[Device, ...] = ()
    builds: bool = False
    engine: Engine | None = None
    settings: NodeSettings = field(default_factory=NodeSettings)
    tunings: Tunings = field(default_factory=Tunings)

    @property
    def nvidia(self) -> tuple[Gpu, ...]:
        """The GPUs that vLLM can use, by their names."""
        return tuple(g for g in self.hardware.gpus if "NVIDIA" in g.name.upper())


def as_if_built(machine: AdvisedMachine) -> AdvisedMachine:
    """Return the machine with the engine that is best built there. Pure.

    The bundled wheel uses no GPU, and on ARM it lacks the dot-product instructions of a
    Raspberry Pi 5; on x86-64 it is as fast as a build.
    """
    system = machine.hardware.platform
    gpus = [g for g in machine.hardware.gpus if g.memory_total >= SMALLEST_GPU]
    if machine.devices:
        return machine
    if gpus or system.system == "Darwin":
        devices = tuple(_devices(gpus)) or (_apple(machine.hardware),)
        return replace(machine, builds=True, devices=devices)
    slow = system.system == "Linux" and system.machine in {"aarch64", "arm64"}
    return replace(
        machine, builds=machine.kind == "none" or (slow and machine.kind == "bundled")
    )


def _apple(hardware: HardwareReport) -> Device:
    """Return the GPU of a Mac, which may use a share of the main memory."""
    cpu, memory = hardware.cpu.model, hardware.memory
    most = int(memory.total * UNIFIED)
    name = cpu if "Apple" in cpu else "Apple GPU"
    return Device("MTL0", name, most, min(most, memory.available))


def _devices(gpus: Iterable[Gpu]) -> Iterator[Device]:
    """Yield the GPUs as llama.cpp would list them."""
    for number, gpu in enumerate(gpus):
        name = f"GPU{number}"
        yield Device(name, gpu.name, gpu.memory_total, gpu.memory_free)


def this_machine(settings: NodeSettings) -> AdvisedMachine:
    """Measure this machine; runs the engine for its list of GPUs."""
    from node.hardware.sample import Sampler

    hardware = Sampler()()
    try:
        engine = find_engine(settings)
    except CommandError:
        return as_if_built(
            AdvisedMachine(hardware=hardware, kind="none", settings=settings)
        )
    devices = devices_of(engine)
    return as_if_built(
        AdvisedMachine(
            hardware=hardware,
            kind=engine.kind,
            build=engine.build,
            devices=devices,
            engine=engine,
            settings=settings,
            tunings=tunings_of(engine, hardware, devices, settings),
        )
    )


def fleet_machines(nodes: Iterable[Mapping[str, Any]]) -> tuple[AdvisedMachine, ...]:
    """Read a balancer's list of nodes; servers that are no nodes are left out. Pure.

    Raises TypeError or KeyError for what is no list of nodes.
    """
    found = list[AdvisedMachine]()
    for each in nodes:
        if each["report"] is None or each["state"] != "up":
            continue
        try:
            report = msgspec.convert(each["report"], NodeReport)
        except msgspec.ValidationError as error:
            raise TypeError(str(error)) from error
        if report.hardware.memory.total:
            found.append(as_if_built(_of_report(report)))
    return tuple(found)


def _of_report(report: NodeReport) -> AdvisedMachine:
    engines = [each for each in report.engines if each.state != "absent"]
    kind = next((each.kind for each in engines), "native")
    uses = kind == "native" and (
        not engines or any(each.launch.gpu_layers for each in engines)
    )
    gpus = report.hardware.gpus if uses else ()
    return AdvisedMachine(
        name=report.name,
        hardware=report.hardware,
        kind=str(kind),
        build=next((each.build for each in engines), ""),
        devices=tuple(_devices(gpus)),
    )
