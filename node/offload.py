"""How much of a model goes to the GPUs: the fit tool's word, and steps down. Pure."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace

import msgspec

from edgeserve.wire import Launch

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
