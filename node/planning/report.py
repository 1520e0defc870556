"""Plan report: a plan as text for people and as JSON for scripts. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from edgeserve.models.memory import MIB, Need, size
from edgeserve.reports.hardware import Hardware
from edgeserve.terminal import printable
from edgeserve.wire import Launch, encode
from node.planning.fit import SHARE
from node.planning.planner import PlannedEngine
from node.planning.prepare import Prepared


def plan_lines(
    found: Prepared,
    hardware: Hardware,
    *,
    limited: bool = False,
    on_demand: bool = False,
) -> Iterator[str]:
    """Yield lines: the machine, the engines that would run, and the problems.

    `limited`: the memory is limited by a control group. `on_demand`: models load when
    they are asked for.
    """
    yield from _machine(found, hardware, " (control group's limit)" if limited else "")
    for each in found.plan.engines:
        yield ""
        yield from map(printable, _engine(each))
        if each.instead:
            yield printable(_row("engine", each.instead))
    if found.plan.absent and on_demand:
        names = ", ".join(each.spec.id for each in found.plan.absent)
        yield ""
        yield printable(f"loads when it is asked for: {names}")
    if found.plan.problems:
        yield ""
        yield from (f"cannot: {printable(each)}" for each in found.plan.problems)


def _machine(found: Prepared, hardware: Hardware, limit: str) -> Iterator[str]:
    cpu, memory = hardware.cpu, hardware.memory
    engine = found.engine
    yield _row("engine", f"{engine.kind} {engine.build}" if engine else "none")
    yield _row("processor", f"{printable(cpu.model)}, {cpu.physical_cores} cores")
    free, total = size(memory.available), size(memory.total)
    share = size(memory.available * SHARE)
    yield _row("memory", f"{free} of {total}{limit} free; engines may take {share}")
    for each in found.devices:
        free, total = size(each.memory_free), size(each.memory_total)
        name = printable(f"{each.name}: {each.description}")
        yield _row("GPU", f"{name}, {free} of {total} free")
    if not found.devices:
        yield _row("GPU", "none that the engine can use")


def _engine(planned: PlannedEngine) -> Iterator[str]:
    spec, fitted, launch = planned.spec, planned.fitted, planned.spec.launch
    yield spec.id
    yield _row("file", str(spec.path))
    if planned.chosen:
        yield _row("why", planned.chosen)
    yield _row("slots", f"{launch.slots} x {launch.context:,} tokens of context")
    yield _row("keys, values", _kv(launch))
    yield _row("prompt cache", _cache(launch))
    ubatch = launch.ubatch or launch.batch
    yield _row("batch", f"{launch.batch} tokens a call, {ubatch} a computation")
    spin = f", {launch.spin} polls before they sleep" if launch.spin else ""
    yield _row("threads", f"{launch.threads}{spin}")
    yield _row("GPU layers", _layers(launch, spec.layers))
    if launch.speculative:
        yield _row("speculation", _speculation(launch))
    yield _row("memory", fitted.need.arithmetic())
    if fitted.gpu_memory:
        main, gpu = size(fitted.memory), size(fitted.gpu_memory)
        yield _row("", f"{gpu} of it on GPUs, {main} in main memory")
    if fitted.preferred:
        yield _row("", f"reduced to fit: {_preferred(fitted.preferred)}")
    basis = "measured" if planned.tuning else "expected"
    yield _row("speed", f"{planned.speed:.3g} tokens/s for one stream, {basis}")
    yield _row("tuning", planned.tuning.summary if planned.tuning else UNTUNED)


INDENT = 16
"""The column of the values."""

UNTUNED = "not tuned; `edgeserve node tune` measures settings"


def _preferred(need: Need) -> str:
    return (
        f"{need.slots} x {need.context:,} tokens, {need.kv_type}, would take"
        f" {size(need.total)}"
    )


def _kv(launch: Launch) -> str:
    fast = "on" if launch.flash_attention else "off"
    return f"{launch.kv_type}, flash attention {fast}"


def _speculation(launch: Launch) -> str:
    if not launch.draft:
        return f"{launch.speculative}, from the text"
    return f"{launch.draft_tokens} tokens ahead by {launch.draft}"


def _cache(launch: Launch) -> str:
    if not launch.cache_ram_mib:
        return "none besides the slots"
    return f"{size(launch.cache_ram_mib * MIB)} besides the slots"


def _layers(launch: Launch, total: int) -> str:
    count = "all" if launch.gpu_layers < 0 else str(launch.gpu_layers)
    on_devices = f" on {', '.join(launch.devices)}" if launch.devices else ""
    return f"{count} of {total}{on_devices}" if launch.gpu_layers else "none"


def _row(name: str, value: str) -> str:
    return f"  {name:<{INDENT - 3}} {value}"


def plan_json(found: Prepared, hardware: Hardware) -> str:
    """Return the same as JSON. Sizes in bytes, speeds in tokens/s."""
    engine = found.engine
    document = {
        "engine": {"kind": engine.kind, "build": engine.build} if engine else None,
        "hardware": hardware,
        "devices": found.devices,
        "engines": [_entry(each, found) for each in found.plan.engines],
        "absent": [_entry(each, found) for each in found.plan.absent],
        "problems": found.plan.problems,
    }
    return msgspec.json.format(encode(document)).decode()


def _entry(planned: PlannedEngine, found: Prepared) -> dict[str, Any]:
    spec, fitted = planned.spec, planned.fitted
    return {
        "kind": found.engine_of(planned).kind,
        "instead": planned.instead or None,
        "id": spec.id,
        "model": spec.model,
        "variant": spec.variant,
        "file": str(spec.path),
        "role": spec.role,
        "launch": spec.launch,
        "layers": spec.layers,
        "memory": fitted.memory,
        "gpu_memory": fitted.gpu_memory,
        "need": {**_need(fitted.need), "arithmetic": fitted.need.arithmetic()},
        "wished": _need(fitted.preferred) if fitted.preferred else None,
        "speed": planned.speed,
        "chosen": planned.chosen,
        "tuning": planned.tuning,
    }


def _need(need: Need) -> dict[str, Any]:
    return {**msgspec.to_builtins(need), "total": need.total}
