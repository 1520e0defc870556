"""Memory growth: how much memory an engine may take before its node ends it.

A request can make llama.cpp take all there is; then the kernel chooses who dies, and it
may be a neighbour. What was planned, or what the engine took when it was ready, is the
measure: images, checkpoints and long answers take more, but not without end.
"""

from __future__ import annotations

import signal
from pathlib import Path

from edgeserve.wire import Ended
from node.engines.base import EngineSpec

GIB = 2**30
SHARE = 0.25
"""Part of the plan that may come on top of it, and a GiB at least."""

VISION = 2 * GIB
"""What looking at images may take beside."""

OUTSIDE = tuple(
    -each for each in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
)
"""What a process ends with where it was told to."""

VMSTAT = Path("/proc/vmstat")


def limit(spec: EngineSpec, at_start: int) -> int:
    """Return the bytes past which an engine is ended; `at_start`, once it was ready."""
    planned = max(spec.memory, at_start)
    room = max(int(planned * SHARE), GIB)
    return planned + room + (VISION if spec.projector else 0)


def said(taken: int, most: int) -> str:
    """Say why an engine was ended."""
    return (
        f"it took {taken / GIB:.1f} GiB of memory, more than the {most / GIB:.1f} GiB"
        " that it may; it was ended before the system ran out"
    )


def ended_by(status: int, *, for_memory: bool) -> Ended:
    """Say whether somebody else has ended a process that left this status.

    `for_memory`: the kernel has ended some process meanwhile, for want of memory.
    """
    return "killed" if status in OUTSIDE and not for_memory else "died"


def kernel_kills(path: Path = VMSTAT) -> int:
    """Return how often the kernel has ended a process for want of memory."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    found = (line.split() for line in lines if line.startswith("oom_kill "))
    return next((int(count) for _, count in found), 0)
