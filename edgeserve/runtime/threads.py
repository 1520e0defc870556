"""Threads: how many to compute with, and how llama.cpp's threads wait."""

from __future__ import annotations

import os

SPIN = "GOMP_SPINCOUNT"
"""GNU OpenMP's variable: how often a thread looks for work before it sleeps."""

BLOCKTIME = "KMP_BLOCKTIME"
"""The same for clang's OpenMP, in whole milliseconds; llama.cpp would set 200."""

CALM = {"OMP_WAIT_POLICY": "passive", SPIN: "1000", BLOCKTIME: "0"}
"""Threads shall sleep while they wait for one another, but not at once.

Tokens/s of SmolLM2 on two cores, by how often a thread looks before it sleeps:

    looks            0     300   1,000   3,000   10,000   for ever
    alone           37      70     120     120      142        143
    two at once     60      55      39      22       10        0.5

With clang's, while others kept the same cores busy: 49 for 0 ms, 8.5 for 1, 7 for 200.
"""


def calm() -> dict[str, str]:
    """Return this process's environment with it, where nobody has said otherwise."""
    return {**CALM, **os.environ}


def threads_for(asked: int) -> int:
    """Return the threads to use: as asked, else one per physical core we may use."""
    if asked:
        return asked
    import psutil

    physical = psutil.cpu_count(logical=False) or 1
    return min(physical, os.cpu_count() or 1, _allowed())


def _allowed() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has no affinity
        return os.cpu_count() or 1
