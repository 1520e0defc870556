"""A process on a core of its own, and what it costs."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.bench.proxy.load import PATH, chat

READY_SECONDS = 40.0


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
def running(
    command: Sequence[str],
    core: int | None,
    log: Path,
    env: Mapping[str, str] | None = None,
) -> Generator[Process]:
    """Run a command for the length of the block, on one core or on any.

    `env` is added to its environment.
    """
    pinned = () if core is None else ("taskset", "-c", str(core))
    with log.open("ab") as sink:
        child = subprocess.Popen(
            [*pinned, *command],
            stdout=sink,
            stderr=sink,
            env={**os.environ, **(env or {})},
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


def await_ready(port: int, nodes: int = 0) -> None:
    """Wait until a balancer answers and, if it is ours, knows so many machines."""
    deadline = time.monotonic() + READY_SECONDS
    while not _is_ready(port, nodes):
        if time.monotonic() > deadline:
            raise TimeoutError("it did not become ready")
        time.sleep(0.05)


def _is_ready(port: int, nodes: int) -> bool:
    path = "/edgeserve/v1/nodes" if nodes else "/health"
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{port}{path}", timeout=2
        ) as said:
            body: bytes = said.read()
            return body.count(b'"up"') >= nodes
    except OSError:
        return False
