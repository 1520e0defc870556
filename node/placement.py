"""Where a model's layers and memory ended, as llama.cpp's log tells it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from edgeserve.wire import Placement

_LAYERS = re.compile(r"offloaded (\d+)/(\d+) layers to GPU")
_BUFFER = re.compile(
    r"(\S+)\s+(model|KV|RS|compute|output) buffer size =\s*([\d.]+) MiB"
)
_NO_MEMORY = re.compile(
    r"out of memory|cudaMalloc failed|ErrorOutOfDeviceMemory|unable to allocate"
    r"|failed to allocate (?:compute|buffer|\S+ buffer)|insufficient memory",
    re.IGNORECASE,
)
MIB = 2**20


def placement(lines: Iterable[str]) -> Placement | None:
    """Read the placement from an engine's log; None where it says nothing of it.

    A dry run for fitting logs empty buffers first, so the last word per buffer counts.
    """
    layers: tuple[int, int] | None = None
    buffers: dict[tuple[str, str], float] = {}
    for line in lines:
        if found := _LAYERS.search(line):
            layers = (int(found[1]), int(found[2]))
        elif found := _BUFFER.search(line):
            buffers[found[1], found[2]] = float(found[3])
    if layers is None:
        return None
    memory: dict[str, int] = {}
    for (device, _), mib in buffers.items():
        memory[device] = memory.get(device, 0) + round(mib * MIB)
    on_gpu = layers[0] if any(map(on_a_gpu, memory)) else 0
    return Placement(gpu_layers=on_gpu, layers=layers[1], memory=memory)


def on_a_gpu(device: str) -> bool:
    """Whether a buffer's name is a GPU's: CUDA0, Vulkan1, MTL0, ROCm0, SYCL0."""
    return re.match(r"(CUDA|Vulkan|MTL|Metal|ROCm|SYCL)\d*$", device) is not None


def ran_out_of_memory(lines: Iterable[str]) -> bool:
    """Whether an engine's last words say that memory ran out."""
    return any(_NO_MEMORY.search(line) for line in lines)
