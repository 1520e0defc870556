"""Engine devices: which GPUs an engine can use, and how many layers go there."""

from __future__ import annotations

import logging
import re
import shlex
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from edgeserve.config.settings import NodeSettings
from edgeserve.errors import in_words
from edgeserve.wire import Launch
from node.engines.base import Engine, EngineSpec
from node.engines.flags import attention
from node.engines.native import Native

log = logging.getLogger(__name__)

ALL = -1
"""Every layer on the GPUs, as llama.cpp's `-ngl -1` after fitting."""

STEPS = 8
"""A failed start gives back an eighth of the layers; so eight failures end at none."""


@dataclass(frozen=True)
class Device:
    """A GPU as llama.cpp names it, e.g. `CUDA0`; memory in bytes."""

    name: str
    description: str
    memory_total: int
    memory_free: int


@dataclass(frozen=True, kw_only=True)
class Offload:
    """Which layers go where.

    `layers` counts from the output end, ALL for every one. `split` is each GPU's share.
    `overrides` is llama.cpp's `-ot` text: tensors, such as experts, kept on the CPU.
    """

    layers: int = 0
    split: tuple[float, ...] = ()
    overrides: str = ""


_EXPERTS = r"ffn_(up|down|gate|gate_up)_(ch|)exps=CPU"


def experts_on_cpu(layers: int) -> str:
    """Keep the experts of the first `layers` layers on the CPU; -1 for all, 0 none.

    The same patterns as llama.cpp's own `--n-cpu-moe` and `--cpu-moe`.
    """
    if layers < 0:
        return rf"\.{_EXPERTS}"
    return ",".join(rf"blk\.{layer}\.{_EXPERTS}" for layer in range(layers))


def from_fit_tool(line: str) -> Offload:
    """Read `-c N -ngl N [-ts …] [-ot "…"]` as llama-fit-params prints it.

    Raises ValueError on anything else.
    """
    words = shlex.split(line)
    pairs = dict(zip(words[::2], words[1::2], strict=True))
    if "-ngl" not in pairs:
        raise ValueError(f"not what llama-fit-params prints: {line!r}")
    layers = int(pairs["-ngl"])
    shares = pairs.get("-ts", "")
    return Offload(
        layers=ALL if layers < 0 else layers,
        split=tuple(float(share) for share in shares.split(",") if share),
        overrides=pairs.get("-ot", ""),
    )


def applied(launch: Launch, offload: Offload) -> Launch:
    """Return the launch with that offload."""
    return msgspec.structs.replace(
        launch,
        gpu_layers=offload.layers,
        tensor_split=offload.split,
        overrides=offload.overrides,
    )


def of(launch: Launch) -> Offload:
    """Return the offload of a launch."""
    return Offload(
        layers=launch.gpu_layers,
        split=launch.tensor_split,
        overrides=launch.overrides,
    )


def stepped_down(offload: Offload, model_layers: int) -> Offload | None:
    """Return less offload after running out of memory; None when none is left.

    `model_layers` counts the output layer, as llama.cpp's "offloaded N/M" does.
    """
    now = model_layers if offload.layers == ALL else min(offload.layers, model_layers)
    if now <= 0:
        return None
    step = max(1, model_layers // STEPS)
    return replace(offload, layers=max(0, now - step))


FIT_TOOL = "llama-fit-params"
ASK_SECONDS = 60.0
"""A GPU driver may take tens of seconds to wake up."""

MARGIN_MIB = 1024
"""GPU memory left free: for the desktop, for other engines' peaks, for the driver."""

MIB = 2**20
_DEVICE = re.compile(r"^\s+(\w+): (.+) \((\d+) MiB, (\d+) MiB free\)$")


def devices_of(engine: Engine) -> tuple[Device, ...]:
    """Return the GPUs the engine can compute on; none for the bundled engine's wheel.

    A device that shows no memory, as a broken driver's does, is left out.
    """
    if not isinstance(engine, Native):
        return ()
    found = listed(output_of(engine.path, "--list-devices").splitlines())
    return tuple(each for each in found if each.memory_total)


def listed(lines: Iterable[str]) -> tuple[Device, ...]:
    """Read the lines of `--list-devices`."""
    return tuple(
        Device(found[1], found[2], int(found[3]) * MIB, int(found[4]) * MIB)
        for line in lines
        if (found := _DEVICE.match(line))
    )


def fitted(engine: Engine, spec: EngineSpec) -> Offload | None:
    """Ask llama.cpp's fit tool how much of a model its GPUs hold.

    None where there is no such tool beside the engine, or it cannot say.
    """
    if not isinstance(engine, Native):
        return None
    tool = engine.path.resolve().with_name(FIT_TOOL)
    if not tool.exists():
        return None
    output = output_of(tool, *_shape(spec))
    lines = [line for line in output.splitlines() if line.startswith("-c ")]
    if not lines:
        log.warning("%s cannot fit %s: %s", FIT_TOOL, spec.path.name, output[-200:])
        return None
    return from_fit_tool(lines[-1])


def offloaded(engine: Engine, spec: EngineSpec, settings: NodeSettings) -> EngineSpec:
    """Let the fit tool say how many layers go to the GPUs, if nobody has said it.

    It knows compute buffers to the byte, which our own estimate cannot.
    """
    said = settings.gpu_layers != "auto" or settings.tensor_split
    if said or settings.experts_on_cpu or not spec.launch.gpu_layers:
        return spec
    offload = fitted(engine, spec)
    return replace(spec, launch=applied(spec.launch, offload)) if offload else spec


def _shape(spec: EngineSpec) -> tuple[str, ...]:
    """Say what is fixed, so that only the offload is chosen."""
    launch = spec.launch
    return (
        *("--model", str(spec.path)),
        *("--parallel", str(launch.slots)),
        *("--ctx-size", str(launch.slots * launch.context)),
        *("--batch-size", str(launch.batch)),
        *("--ubatch-size", str(launch.ubatch or launch.batch)),
        *("--cache-type-k", launch.kv_type),
        *("--cache-type-v", launch.kv_type),
        *("--flash-attn", attention(launch)),
        *("--fit-target", str(MARGIN_MIB)),
        *(("--device", ",".join(launch.devices)) if launch.devices else ()),
    )


def output_of(tool: Path, *arguments: str) -> str:
    """Return what a tool prints, which may be nothing."""
    try:
        done = subprocess.run(
            [tool, *arguments], capture_output=True, text=True, timeout=ASK_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("cannot ask %s: %s", tool, in_words(error))
        return ""
    return done.stdout if done.returncode == 0 else done.stdout + done.stderr
