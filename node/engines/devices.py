"""Which GPUs an engine can use, and what its own fit tool proposes for them."""

from __future__ import annotations

import logging
import re
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from edgeserve.config import NodeSettings
from edgeserve.errors import in_words
from node.engines.flags import attention
from node.engines.native import Native
from node.engines.protocol import Engine, EngineSpec
from node.offload import Device, Offload, applied, from_fit_tool

log = logging.getLogger(__name__)

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
