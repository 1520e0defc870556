"""Machines of the benchmark: real nodes and a balancer on loopback, ended as asked."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil

from edgeserve.config.paths import models_dir
from edgeserve.models.download import DEFAULT, fetch
from node.engines.process import free_port
from tests.bench.proxy.process import running
from tests.patience import PATIENCE

MODEL = DEFAULT.name
ANSWER = 16
"""Tokens of an answer."""


def model() -> Path:
    """Return the model's file; it is fetched only where it is missing."""
    return fetch(DEFAULT, models_dir(), lambda _step, _done, _total: None)


def until(ready: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not come to pass that {what}")
        time.sleep(0.05)


def got(url: str) -> Any:
    """Return the JSON at a URL; an empty object while nothing answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)
    except OSError:
        return {}


@dataclass(frozen=True)
class Machine:
    """A node or a balancer."""

    name: str
    url: str
    pid: int
    state: Path

    def drain(self) -> None:
        """Ask it to end."""
        psutil.Process(self.pid).send_signal(signal.SIGTERM)

    def engine(self) -> psutil.Process:
        """Return the process of its engine."""
        return next(
            each
            for each in psutil.Process(self.pid).children(recursive=True)
            if "node.engines.bundled_host" in each.cmdline()
            or "llama-server" in each.name()
        )


@contextlib.contextmanager
def node(
    name: str, folder: Path, *flags: str, port: int = 0, models: Path | None = None
) -> Generator[Machine]:
    """Run a node with the model, or with a folder of models that load on demand."""
    port = port or free_port()
    what = ("--models-dir", str(models)) if models else ("--model", str(model()))
    command = [
        *(sys.executable, "-m", "edgeserve", "node", "start", "--port", str(port)),
        *("--name", name, *what, "--no-advertise", "--gpu-layers"),
        *("0", "--threads", "1", "--state-dir", str(folder / name), *flags),
    ]
    url = f"http://127.0.0.1:{port}"
    home = {"EDGESERVE_CONFIG_DIR": str(folder / "config")}
    with running(command, None, folder / f"{name}.log", home) as child:

        def ready() -> bool:
            engines = got(f"{url}/edgeserve/v1/node").get("engines") or [{}]
            return bool(engines[0].get("state") == "ready")

        until(ready, f"{name} is ready")
        yield Machine(name, url, child.pid, folder / name)


@contextlib.contextmanager
def balancer(folder: Path, *nodes: Machine, later: str = "") -> Generator[Machine]:
    """Run a balancer with these nodes, and one that comes `later`."""
    urls = [each.url for each in nodes] + ([later] if later else [])
    port = free_port()
    command = [
        *(sys.executable, "-m", "edgeserve", "balancer", "start", "--port", str(port)),
        *("--no-discover", "--state-dir", str(folder / "balancer")),
        *(part for each in urls for part in ("--node", each)),
    ]
    url = f"http://127.0.0.1:{port}"
    home = {"EDGESERVE_CONFIG_DIR": str(folder / "config")}
    with running(command, None, folder / "balancer.log", home) as child:
        until(lambda: bool(got(f"{url}/v1/models").get("data")), "models are listed")
        yield Machine("balancer", url, child.pid, folder / "balancer")


@dataclass
class Turn:
    """One answer, and the seconds until its first token."""

    text: str
    first: float
    cached: int
    node: str
    id: str


@dataclass
class Conversation:
    """A conversation about facts that no other one shares."""

    number: int
    facts: int

    def __post_init__(self) -> None:
        about = " ".join(
            f"Fact {i}: machine {self.number}-{i} has {i * 7 + self.number} slots."
            for i in range(self.facts)
        )
        self.messages = [{"role": "system", "content": f"Ship {self.number}. {about}"}]

    def ask(self, at: str, question: str) -> Turn:
        """Ask, and keep question and answer."""
        self.messages.append({"role": "user", "content": question})
        body = {
            "model": MODEL,
            "messages": self.messages,
            "temperature": 0,
            "max_tokens": ANSWER,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        request = urllib.request.Request(
            f"{at}/v1/chat/completions",
            data=json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        began, first, text, cached = time.monotonic(), 0.0, "", 0
        with urllib.request.urlopen(request, timeout=1800) as answer:
            id_, where = (
                answer.headers[f"x-edgeserve-{each}"] for each in ("request-id", "node")
            )
            for line in answer:
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line.removeprefix(b"data: "))
                for choice in event.get("choices", ()):
                    if content := choice["delta"].get("content"):
                        first = first or time.monotonic() - began
                        text += content
                if usage := event.get("usage"):
                    about = usage.get("prompt_tokens_details") or {}
                    cached = about.get("cached_tokens", 0)
        self.messages.append({"role": "assistant", "content": text})
        return Turn(text, first, cached, cast("str", where), cast("str", id_))
