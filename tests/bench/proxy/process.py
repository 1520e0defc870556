"""A process on a core of its own, and what it costs."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.bench.proxy.load import PATH, chat

READY_SECONDS = 30.0


@dataclass(frozen=True)
class Process:
    """A running command with all its children."""

    pid: int

    def _all(self) -> list[psutil.Process]:
        parent = psutil.Process(self.pid)
        return [parent, *parent.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """Processor time so far, user and system, of every thread and child."""
        times = [each.cpu_times() for each in self._all()]
        return sum(each.user + each.system for each in times)

    def resident(self) -> int:
        """Resident memory, in bytes."""
        return sum(each.memory_info().rss for each in self._all())


@contextlib.contextmanager
def running(command: Sequence[str], core: int, log: Path) -> Generator[Process]:
    """Run a command on one core for the length of the block."""
    with log.open("ab") as sink:
        child = subprocess.Popen(
            ["taskset", "-c", str(core), *command], stdout=sink, stderr=sink
        )
    try:
        yield Process(child.pid)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in psutil.Process(child.pid).children(recursive=True):
                each.terminate()
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def free_ports(count: int) -> list[int]:
    """Find ports that are free, each with a free neighbour (for metrics)."""
    found: list[int] = []
    for port in range(21000, 30000, 10):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


def await_chat(port: int) -> None:
    """Wait until a chat is answered. Raises TimeoutError with the last refusal."""
    deadline = time.monotonic() + READY_SECONDS
    question = urllib.request.Request(
        f"http://127.0.0.1:{port}{PATH}",
        data=chat(8).encode(),
        headers={"Content-Type": "application/json"},
    )
    while True:
        try:
            with urllib.request.urlopen(question, timeout=2):
                return
        except (OSError, urllib.error.URLError) as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no chat answered: {error}") from error
            time.sleep(0.1)
