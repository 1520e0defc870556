"""Resource limits: cgroup memory and CPU, and CPU affinity.

Both cgroup versions, and both at once. In a container the group's own folder is often
the mount itself, so the path that the kernel gives need not exist.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from node.hardware.readings import number, text

ROOT = Path("/")
UNLIMITED = 2**60
"""cgroup v1 writes "no limit" as a number near 2**63."""


def memory_room(root: Path = ROOT) -> tuple[int, int] | None:
    """Return the tightest memory limit and what is left under it, in bytes, or None.

    File cache counts as left, recently used or not: the kernel drops it before it
    refuses memory.
    """
    found = list(_memory(root))
    limits = [limit for limit, _ in found]
    rooms = [min(limit, room) for limit, room in found]
    return (min(limits), max(0, min(rooms))) if found else None


MEMORY = (
    ("", "memory.max", "memory.current", ""),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
)
"""Of each version: controller, files of limit and use, prefix in `memory.stat`."""


def _memory(root: Path) -> Iterator[tuple[int, int]]:
    for controller, most, now, prefix in MEMORY:
        for folder in _folders(root, controller):
            if text(folder / most) == "max":
                continue
            limit, used = number(folder / most), number(folder / now)
            if limit is not None and limit < UNLIMITED and used is not None:
                yield limit, limit - used + _cache(folder, prefix)


def cpus(root: Path = ROOT) -> float:
    """Return how many CPUs this process may use: the affinity mask, or less."""
    return min([float(_allowed()), *_quotas_v2(root), *_quotas_v1(root)])


def _allowed() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas_v2(root: Path) -> Iterator[float]:
    for folder in _folders(root, ""):
        quota, _, period = text(folder / "cpu.max").partition(" ")
        if quota.isdecimal() and period.isdecimal() and int(period):
            yield int(quota) / int(period)


def _quotas_v1(root: Path) -> Iterator[float]:
    for folder in _folders(root, "cpu"):
        quota = number(folder / "cpu.cfs_quota_us")
        period = number(folder / "cpu.cfs_period_us")
        if quota is not None and quota > 0 and period:
            yield quota / period


def _folders(root: Path, controller: str) -> list[Path]:
    """Return this process's folders in one hierarchy, from the mount downwards.

    Version 2 is the one hierarchy without a controller.
    """
    folder = root / "sys/fs/cgroup" / controller
    found = [folder]
    for part in Path(_group(root, controller)).parts[1:]:
        folder /= part
        found.append(folder)
    return found


def _group(root: Path, controller: str) -> str:
    """Return the path that `/proc/self/cgroup` gives; v2's controller list is empty."""
    for line in text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, found, path = rest.partition(":")
        if found and controller in controllers.split(","):
            return path
    return "/"


def _cache(folder: Path, prefix: str) -> int:
    """Return the bytes of file cache, which the kernel keeps on two lists."""
    lists = (f"{prefix}inactive_file", f"{prefix}active_file")
    fields = map(str.split, text(folder / "memory.stat").splitlines())
    return sum(
        int(field[1])
        for field in fields
        if len(field) == 2 and field[0] in lists and field[1].isdecimal()
    )
