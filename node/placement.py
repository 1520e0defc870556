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


class Reader:
    """Reads a log line by line.

    A dry run for fitting logs empty buffers first, so the last word per buffer counts.
    """

    def __init__(self) -> None:
        self._layers: tuple[int, int] | None = None
        self._buffers: dict[tuple[str, str], float] = {}

    def see(self, line: str) -> None:
        """Take in one line."""
        if found := _LAYERS.search(line):
            self._layers = (int(found[1]), int(found[2]))
        elif found := _BUFFER.search(line):
            self._buffers[found[1], found[2]] = float(found[3])

    @property
    def placement(self) -> Placement | None:
        """What has been said so far; None where nothing of it."""
        if self._layers is None:
            return None
        memory: dict[str, int] = {}
        for (device, _), mib in self._buffers.items():
            memory[device] = memory.get(device, 0) + round(mib * MIB)
        on_gpu = self._layers[0] if any(map(on_a_gpu, memory)) else 0
        return Placement(gpu_layers=on_gpu, layers=self._layers[1], memory=memory)


def on_a_gpu(device: str) -> bool:
    """Whether a buffer's name is a GPU's: CUDA0, Vulkan1, MTL0, ROCm0, SYCL0."""
    return re.match(r"(CUDA|Vulkan|MTL|Metal|ROCm|SYCL)\d*$", device) is not None


def ran_out_of_memory(lines: Iterable[str]) -> bool:
    """Whether an engine's last words say that memory ran out."""
    return any(_NO_MEMORY.search(line) for line in lines)
