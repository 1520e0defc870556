"""Shares of a core: hold a process to one, by cgroup, or by stopping it in turns.

A cgroup's quota counts in periods of 20 ms, so that a slow engine is slow rather than
jerky; where no cgroup can be made, a process is stopped for a part of each 100 ms.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
QUOTA_US = 20_000
CYCLE_SECONDS = 0.1
FIRST = {"cpu.shares": "16384", "cpu.weight": "1600"}
"""Before other programs on the machine: they shall not slow what is measured."""

EMPTY_SECONDS = 2.0

Hold = Callable[[int, float], AbstractContextManager[None]]
"""Hold a process, by id, to a share of a core for the length of a block."""


@dataclass(frozen=True)
class Cgroup:
    """A group for one process, of either version; `make` raises OSError."""

    path: Path

    @classmethod
    def make(cls, parent: Path, name: str) -> Cgroup:
        path = parent / name
        path.mkdir()
        for file, value in FIRST.items():
            if (path / file).exists():
                (path / file).write_text(value)
        return cls(path)

    def limit(self, share: float) -> None:
        quota = round(share * QUOTA_US)
        if (self.path / "cpu.cfs_quota_us").exists():
            (self.path / "cpu.cfs_period_us").write_text(str(QUOTA_US))
            (self.path / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            (self.path / "cpu.max").write_text(f"{quota} {QUOTA_US}")

    def take(self, pid: int) -> None:
        (self.path / "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        """Give what is left in it to the group above, then remove it."""
        deadline = time.monotonic() + EMPTY_SECONDS
        while True:
            for pid in (self.path / "cgroup.procs").read_text().split():
                with contextlib.suppress(OSError):
                    (self.path.parent / "cgroup.procs").write_text(pid)
            try:
                self.path.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return


def in_cgroups(parent: Path) -> Hold:
    @contextlib.contextmanager
    def hold(pid: int, share: float) -> Generator[None]:
        group = Cgroup.make(parent, f"edgeserve-bench-{pid}")
        try:
            group.limit(share)
            group.take(pid)
            yield
        finally:
            group.remove()

    return hold


@contextlib.contextmanager
def in_turns(pid: int, share: float) -> Generator[None]:
    """Let it run for its share of each cycle."""
    over = threading.Event()

    def cycle() -> None:
        with contextlib.suppress(ProcessLookupError):
            while not over.is_set():
                os.kill(pid, signal.SIGCONT)
                time.sleep(share * CYCLE_SECONDS)
                os.kill(pid, signal.SIGSTOP)
                time.sleep((1 - share) * CYCLE_SECONDS)
            os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=cycle, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def best() -> tuple[str, Hold]:
    """Return the best way on this machine, and its name."""
    for name, parent in (("cgroup v1", CGROUPS / "cpu"), ("cgroup v2", CGROUPS)):
        if _works(parent):
            return name, in_cgroups(parent)
    return "duty cycle", in_turns


def _works(parent: Path) -> bool:
    if not any((parent / each).exists() for each in ("cgroup.procs", "tasks")):
        return False
    control = parent / "cgroup.subtree_control"
    try:
        if control.exists():
            control.write_text("+cpu")
        group = Cgroup.make(parent, f"edgeserve-bench-{os.getpid()}")
        try:
            group.limit(0.5)
        finally:
            group.remove()
    except OSError:
        return False
    return True
