"""How many threads to compute with where nobody says."""

from __future__ import annotations

import os

import psutil


def threads_for(asked: int) -> int:
    """Return the threads to use: as asked, else one per physical core we may use."""
    if asked:
        return asked
    physical = psutil.cpu_count(logical=False) or 1
    return min(physical, os.cpu_count() or 1, _allowed())


def _allowed() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has no affinity
        return os.cpu_count() or 1
