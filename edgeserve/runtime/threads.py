"""Threads: how many threads an engine gets, and how they wait for each other."""

from __future__ import annotations

import os
import sys

SPIN = "GOMP_SPINCOUNT"
"""GNU OpenMP's variable: how often a thread checks for work before it sleeps."""

BLOCKTIME = "KMP_BLOCKTIME"
"""The same for clang's OpenMP, in whole milliseconds; llama.cpp would set 200."""

OPENMP = {"OMP_WAIT_POLICY": "passive", SPIN: "1000", BLOCKTIME: "0"}
"""Threads check for work a while, then sleep.

Tokens/s of SmolLM2 on two cores, by how often a thread checks before it sleeps:

    checks           0     300   1,000   3,000   10,000   for ever
    alone           37      70     120     120      142        143
    two at once     60      55      39      22       10        0.5

With clang's, while others kept the same cores busy: 49 for 0 ms, 8.5 for 1, 7 for 200.
"""


def openmp_environment() -> dict[str, str]:
    """Return this process's environment with `OPENMP`; variables already set win."""
    return {**OPENMP, **os.environ}


def threads_for(wanted: int) -> int:
    """Return the threads to use: `wanted`, else one per usable physical core."""
    if wanted:
        return wanted
    import psutil

    found = [psutil.cpu_count(logical=False) or 1, os.cpu_count() or 1]
    if sys.platform == "linux":
        found.append(len(os.sched_getaffinity(0)))  # macOS has none
    return min(found)
