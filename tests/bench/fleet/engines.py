"""Engines of the benchmark: three real ones, each held to a share of a core."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import urllib.request
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil

from edgeserve.config.paths import models_dir
from edgeserve.models.download import DEFAULT, fetch
from edgeserve.runtime.threads import openmp_environment
from edgeserve.wire import Launch
from node.engines.base import EngineSpec
from node.engines.bundled import PARAMETERS
from node.engines.flags import environment, parameters
from node.engines.process import free_port
from tests.bench.fleet.throttle import Hold
from tests.bench.proxy.process import running

MODEL = DEFAULT.name
SHARES = {"fast": 0.80, "middle": 0.28, "slow": 0.12}
"""Of a core, by the name of the machine."""

LAUNCH = Launch(slots=2, context=4096, batch=256, threads=1)
READY_SECONDS = 60.0
HOST = "node.engines.bundled_host"


@dataclass(frozen=True)
class Engine:
    """One engine, and the port that a balancer is told: its own, or its node's."""

    name: str
    port: int
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used."""
        times = self.process.cpu_times()
        return times.user + times.system


def model() -> Path:
    """Return the model's file; it is fetched only where it is missing."""
    return fetch(DEFAULT, models_dir(), lambda _step, _done, _total: None)


@contextlib.contextmanager
def bare(name: str, folder: Path) -> Generator[Engine]:
    """Run an engine as a node does, without a key; its name is its model's."""
    port = free_port()
    spec = EngineSpec(
        id=MODEL,
        model=MODEL,
        variant=name,
        path=model(),
        role="generate",
        abilities=("chat", "completion"),
        launch=LAUNCH,
    )
    given = parameters(spec, port, "")
    del given["api_keys"]
    env = {**openmp_environment(), **environment(LAUNCH), PARAMETERS: json.dumps(given)}
    command = [sys.executable, "-m", HOST]
    with running(command, None, folder / f"{name}.log", env) as child:
        _until_healthy(port)
        yield Engine(name, port, psutil.Process(child.pid))


@contextlib.contextmanager
def noded(name: str, folder: Path) -> Generator[Engine]:
    """Run a node with its engine; the engine is the node's child."""
    port = free_port()
    launch = LAUNCH
    command = [
        *(sys.executable, "-m", "tests.bench.fleet.node", "--port", str(port)),
        *("--name", name, "--model", str(model()), "--no-advertise"),
        *("--engine", "bundled", "--slots", str(launch.slots)),
        *("--context", str(launch.context), "--batch", str(launch.batch)),
        *("--threads", str(launch.threads), "--gpu-layers", "0"),
        *("--state-dir", str(folder / name), "--log-level", "warning"),
    ]
    home = {"EDGESERVE_CONFIG_DIR": str(folder / "config")}
    with running(command, None, folder / f"{name}.log", home) as child:
        _until_ready(port)
        yield Engine(name, port, _engine_of(child.pid))


def _engine_of(node: int) -> psutil.Process:
    for each in psutil.Process(node).children(recursive=True):
        if HOST in each.cmdline():
            return each
    raise RuntimeError("the node has no engine")


def _until_healthy(port: int) -> None:
    _until(lambda: bool(_got(port, "/health")))


def _until_ready(port: int) -> None:
    _until(lambda: b'"state":"ready"' in _got(port, "/edgeserve/v1/node"))


def _until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError("an engine did not become ready")
        time.sleep(0.05)


def _got(port: int, path: str) -> bytes:
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{port}{path}", timeout=2
        ) as said:
            body: bytes = said.read()
            return body.replace(b": ", b":")
    except OSError:
        return b""


@contextlib.contextmanager
def fleet(folder: Path, hold: Hold, *, nodes: bool) -> Generator[list[Engine]]:
    """Run the three engines; they load at full speed and are then held back."""
    with ExitStack() as stack:
        start = noded if nodes else bare
        engines = [stack.enter_context(start(name, folder)) for name in SHARES]
        for engine in engines:
            stack.enter_context(hold(engine.process.pid, SHARES[engine.name]))
        yield engines


QUIET_SECONDS, MOST_QUIET_SECONDS = 0.5, 30.0
IDLE_TICKS = 0.015


def until_quiet(engines: list[Engine], since: list[float]) -> None:
    """Wait until each has worked since then, and all have stopped.

    That is the end of the probes by which a balancer measures them.
    """
    deadline = time.monotonic() + MOST_QUIET_SECONDS
    before, still = [each.cpu_seconds() for each in engines], 0
    while still < 2 and time.monotonic() < deadline:
        time.sleep(QUIET_SECONDS)
        now = [each.cpu_seconds() for each in engines]
        worked = all(n - s > 2 * IDLE_TICKS for n, s in zip(now, since, strict=True))
        idle = all(n - b <= IDLE_TICKS for n, b in zip(now, before, strict=True))
        before, still = now, still + 1 if worked and idle else 0
