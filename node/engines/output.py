"""Engine output: its last lines, its placement of layers, why it ended. Pure."""

from __future__ import annotations

import re
import signal
from collections import deque
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


def on_a_gpu(device: str) -> bool:
    """Whether a buffer's name is a GPU's: CUDA0, Vulkan1, MTL0, ROCm0, SYCL0."""
    return re.match(r"(CUDA|Vulkan|MTL|Metal|ROCm|SYCL)\d*$", device) is not None


def ran_out_of_memory(lines: Iterable[str]) -> bool:
    """Whether an engine's last lines show that memory ran out."""
    return any(_NO_MEMORY.search(line) for line in lines)


KEPT = 40
"""Lines of output remembered per engine."""

WIDEST = 1000
"""Characters kept of a line."""

LONGEST = 400
"""Characters of a reason; it is part of every report."""

TELLING = re.compile(
    r"error|fail|unable|cannot|can't|abort|assert|invalid|not found|out of memory"
    r"|terminate|what\(\)|no such|denied|in use|signal|corrupt|out of bounds|missing",
    re.IGNORECASE,
)
PREFIX = re.compile(r"^[\d.]+ [A-Z] +")
"""llama.cpp's clock and level: `0.00.722.674 I `."""


class Output:
    """The last lines of an engine, and the placement from all lines.

    A dry run for fitting logs empty buffers first, so the last line per buffer counts.
    """

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=KEPT)
        self._layers: tuple[int, int] | None = None
        self._buffers: dict[tuple[str, str], float] = {}

    def add(self, raw: bytes) -> str:
        """Keep one line; returns it decoded."""
        line = raw.decode(errors="replace").rstrip()[:WIDEST]
        if line:
            self.lines.append(line)
        if found := _LAYERS.search(line):
            self._layers = (int(found[1]), int(found[2]))
        elif found := _BUFFER.search(line):
            self._buffers[found[1], found[2]] = float(found[3])
        return line

    @property
    def placement(self) -> Placement | None:
        """The placement so far; None where the log shows none."""
        if self._layers is None:
            return None
        memory: dict[str, int] = {}
        for (device, _), mib in self._buffers.items():
            memory[device] = memory.get(device, 0) + round(mib * MIB)
        on_gpu = self._layers[0] if any(map(on_a_gpu, memory)) else 0
        return Placement(gpu_layers=on_gpu, layers=self._layers[1], memory=memory)


def telling(lines: Iterable[str]) -> str:
    """Return the lines that tell what went wrong, else the last three."""
    cleaned = [re.sub(r" +", " ", PREFIX.sub("", line)) for line in lines]
    chosen = [line for line in cleaned if TELLING.search(line)] or cleaned[-3:]
    unique = list(dict.fromkeys(chosen))
    text = ""
    # From the end: the last error is the cause.
    for line in reversed(unique):
        joined = f"{line} | {text}" if text else line
        if len(joined) > LONGEST:
            return text or line[:LONGEST]
        text = joined
    return text


def ending(status: int, lines: Iterable[str]) -> str:
    """Return how a process ended, and why, as far as its output tells."""
    if status < 0:
        name = signal.Signals(-status).name
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        how = f"killed by {name}{hint}"
    else:
        how = f"ended with status {status}"
    why = telling(lines)
    return f"{how}: {why}" if why else how
