"""A real node with a real balancer in front, for the length of a block."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READY_SECONDS = 120.0
LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Served:
    """Where balancer and node listen, and what the node said once it was ready."""

    url: str
    node_url: str
    report: dict[str, Any]

    @property
    def engine(self) -> dict[str, Any]:
        first: dict[str, Any] = self.report["engines"][0]
        return first


@contextmanager
def served(*node_flags: str, engines: int = 1) -> Generator[Served]:
    """Start `edgeserve node start` with these flags and a balancer; wait for engines.

    The state folder is the caller's: that is where builds are.
    """
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        node = ("node", "start", "--port", "0", "--no-advertise", *node_flags)
        node_url = stack.enter_context(running(scratch / "node.log", *node))
        front = ("balancer", "start", "--port", "0", "--no-discover", "--node")
        url = stack.enter_context(
            running(scratch / "balancer.log", *front, node_url, "--queue", "4096")
        )
        report = _until_ready(node_url, engines, scratch)
        until_listed(url)
        yield Served(url, node_url, report)


@contextmanager
def running(log: Path, *arguments: str) -> Generator[str]:
    """Run `edgeserve` with these arguments; yields the URL that it says."""
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "edgeserve", *arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environ,
        )
    try:
        yield _url(process, log)
    finally:
        process.terminate()
        process.wait(60)


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"http://[^\s/]+", log.read_text()):
            return found.group()
        time.sleep(LOOK_SECONDS)
    raise RuntimeError(f"did not start:\n{log.read_text()}")


def _until_ready(node_url: str, engines: int, scratch: Path) -> dict[str, Any]:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        report = get(f"{node_url}/edgeserve/v1/node")
        states = [engine["state"] for engine in report["engines"]]
        if states.count("ready") == engines:
            return report
        if "quarantined" in states or report["problems"]:
            raise RuntimeError(json.dumps(report, indent=1))
        time.sleep(LOOK_SECONDS)
    raise RuntimeError((scratch / "node.log").read_text()[-3000:])


def until_listed(url: str) -> None:
    """Wait until a balancer lists a model."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and not get(f"{url}/v1/models")["data"]:
        time.sleep(LOOK_SECONDS)


def get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=30) as response:
        answer: dict[str, Any] = json.load(response)
        return answer
