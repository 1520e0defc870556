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
from node.engines.flags import shape
from node.engines.native import Native

log = logging.getLogger(__name__)

ALL = -1
"""Every layer on the GPUs, as llama.cpp's `-ngl -1` after fitting."""

STEPS = 8
"""Each failed start takes an eighth of the layers off; after eight, none is left."""


@dataclass(frozen=True)
class Device:
    """A GPU as llama.cpp names it, e.g. `CUDA0`; memory in bytes."""

    name: str
    description: str
    memory_total: int
    memory_free: int


_EXPERTS = r"ffn_(up|down|gate|gate_up)_(ch|)exps=CPU"


def experts_on_cpu(layers: int) -> str:
    """Return overrides that keep experts of the first `layers` on the CPU; -1 for all.

    The same patterns as llama.cpp's own `--n-cpu-moe` and `--cpu-moe`.
    """
    if layers < 0:
        return rf"\.{_EXPERTS}"
    return ",".join(rf"blk\.{layer}\.{_EXPERTS}" for layer in range(layers))


def with_fit(launch: Launch, line: str) -> Launch:
    """Return the launch with the layers of `-c N -ngl N [-ts …] [-ot "…"]`.

    So llama-fit-params prints them. Raises ValueError on anything else.
    """
    words = shlex.split(line)
    pairs = dict(zip(words[::2], words[1::2], strict=True))
    if "-ngl" not in pairs:
        raise ValueError(f"not a line of llama-fit-params: {line!r}")
    shares = pairs.get("-ts", "")
    return msgspec.structs.replace(
        launch,
        gpu_layers=max(ALL, int(pairs["-ngl"])),
        tensor_split=tuple(float(share) for share in shares.split(",") if share),
        overrides=pairs.get("-ot", ""),
    )


def stepped_down(launch: Launch, model_layers: int) -> Launch | None:
    """Return a launch with fewer layers on the GPUs; None when none is there.

    `model_layers` counts the output layer, as llama.cpp's "offloaded N/M" does.
    """
    all_there = launch.gpu_layers == ALL
    now = model_layers if all_there else min(launch.gpu_layers, model_layers)
    if now <= 0:
        return None
    step = max(1, model_layers // STEPS)
    return msgspec.structs.replace(launch, gpu_layers=max(0, now - step))


FIT_TOOL = "llama-fit-params"
ASK_SECONDS = 60.0
"""A GPU driver may take tens of seconds to wake up."""

MARGIN_MIB = 1024
"""GPU memory left free: for the desktop, the driver and peaks of other engines."""

MIB = 2**20
_DEVICE = re.compile(r"^\s+(\w+): (.+) \((\d+) MiB, (\d+) MiB free\)$")


def devices_of(engine: Engine) -> tuple[Device, ...]:
    """Return the GPUs the engine can compute on; none for the bundled engine's wheel.

    A device without memory, as a broken driver lists it, is left out.
    """
    if not isinstance(engine, Native):
        return ()
    found = listed(output_of(engine.path, "--list-devices").splitlines())
    return tuple(each for each in found if each.memory_total)


def listed(lines: Iterable[str]) -> tuple[Device, ...]:
    """Parse the lines of `--list-devices`."""
    return tuple(
        Device(found[1], found[2], int(found[3]) * MIB, int(found[4]) * MIB)
        for line in lines
        if (found := _DEVICE.match(line))
    )


def fitted(engine: Engine, spec: EngineSpec) -> Launch | None:
    """Return the launch with the layers that llama.cpp's fit tool puts on its GPUs.

    None where there is no such tool beside the engine, or it fails.
    """
    if not isinstance(engine, Native):
        return None
    tool = engine.path.resolve().with_name(FIT_TOOL)
    if not tool.exists():
        return None
    output = output_of(
        tool,
        *("--model", str(spec.path)),
        *shape(spec.launch),
        *("--fit-target", str(MARGIN_MIB + _draft_mib(spec))),
        *(("--device", ",".join(spec.launch.devices)) if spec.launch.devices else ()),
    )
    lines = [line for line in output.splitlines() if line.startswith("-c ")]
    if not lines:
        log.warning("%s cannot fit %s: %s", FIT_TOOL, spec.path.name, output[-200:])
        return None
    return with_fit(spec.launch, lines[-1])


def _draft_mib(spec: EngineSpec) -> int:
    """Return the size of a draft model, which the fit tool does not know of."""
    try:
        return spec.draft.stat().st_size // MIB + 1 if spec.draft else 0
    except OSError:
        return 0


def offloaded(engine: Engine, spec: EngineSpec, settings: NodeSettings) -> EngineSpec:
    """Let the fit tool choose the layers on the GPUs, unless the settings do.

    It knows the compute buffers to the byte; our own estimate does not.
    """
    is_set = settings.gpu_layers != "auto" or settings.tensor_split
    if is_set or settings.experts_on_cpu or not spec.launch.gpu_layers:
        return spec
    launch = fitted(engine, spec)
    return replace(spec, launch=launch) if launch else spec


def output_of(tool: Path, *arguments: str) -> str:
    """Return a tool's output, which may be empty."""
    try:
        done = subprocess.run(
            [tool, *arguments], capture_output=True, text=True, timeout=ASK_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("cannot run %s: %s", tool, in_words(error))
        return ""
    return done.stdout if done.returncode == 0 else done.stdout + done.stderr
