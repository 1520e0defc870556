"""Memory growth: how much memory an engine may take before its node ends it.

A request can make llama.cpp take all memory; then the kernel ends some process, maybe
another one. The limit starts from the planned memory, or from what the engine took when
it was ready: images, checkpoints and long answers take more, but not without end.
"""

from __future__ import annotations

import signal
from pathlib import Path

from edgeserve.wire import Ended
from node.engines.base import EngineSpec
from node.hardware.readings import measured, text

GIB = 2**30
SHARE = 0.25
"""Share of the plan that an engine may take on top of it; at least a GiB."""

VISION = 2 * GIB
"""Bytes that processing images may take beside."""

OUTSIDE = tuple(
    -each for each in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
)
"""Statuses of a process that a signal from outside has ended."""

VMSTAT = Path("/proc/vmstat")


def limit(spec: EngineSpec, at_start: int) -> int:
    """Return the limit in bytes; `at_start` is what the engine took when ready."""
    planned = max(spec.memory, at_start)
    room = max(int(planned * SHARE), GIB)
    return planned + room + (VISION if spec.projector else 0)


def reason(taken: int, most: int) -> str:
    """Say why an engine was ended."""
    return (
        f"it took {taken / GIB:.1f} GiB of memory, and its limit is"
        f" {most / GIB:.1f} GiB; it was ended before the system ran out"
    )


def ended_by(status: int, *, for_memory: bool) -> Ended:
    """Return whether a process with this status was ended from outside.

    `for_memory`: the kernel has ended some process meanwhile, for want of memory.
    """
    return "killed" if status in OUTSIDE and not for_memory else "died"


def kernel_kills(path: Path = VMSTAT) -> int:
    """Return how often the kernel has ended a process for want of memory."""
    counters = measured("out-of-memory kills", lambda: text(path), "")
    lines = (line.split() for line in counters.splitlines())
    return next((int(line[1]) for line in lines if line[:1] == ["oom_kill"]), 0)
