"""A machine joins real processes, serves, and is revoked while it answers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from node.engines.process import free_port
from tests.fakes.gguf import a_model
from tests.fleet.llama_server import script
from tests.patience import PATIENCE

EDGESERVE = (sys.executable, "-m", "edgeserve")
TOKENS = 60
FAKE = ("--decode", "20", "--length", str(TOKENS))


class Machine:
    """One machine: its folders, and the processes that run there."""

    def __init__(self, folder: Path, stack: ExitStack, url: str) -> None:
        self.folder, self._stack = folder, stack
        self.token = folder / "config" / "token"
        folder.mkdir()
        self.env = {
            **os.environ,
            "EDGESERVE_CONFIG_DIR": str(folder / "config"),
            "EDGESERVE_STATE_DIR": str(folder / "state"),
            "EDGESERVE_MODELS_DIR": str(folder.parent / "models"),
            "EDGESERVE_URL": url,
        }

    def run(self, *words: str) -> str:
        """Run a command to its end; return what it said."""
        done = subprocess.run(
            [*EDGESERVE, *words],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return f"{done.returncode}: {done.stdout}"

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command; its output goes to `log`."""
        with (self.folder / "log").open("ab") as out:
            process = subprocess.Popen(
                [*EDGESERVE, *words], env=self.env, stdout=out, stderr=out
            )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def said(self, pattern: str) -> str:
        """Wait for words in the log; return the first group."""
        until(lambda: re.search(pattern, self.log) is not None, pattern)
        found = re.search(pattern, self.log)
        assert found is not None
        return found.group(found.re.groups and 1)


def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


class Fleet:
    """A balancer with `--approve`, and two machines."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.ports = {name: free_port() for name in ("pi", "nuc")}
        (folder / "models").mkdir()
        self._model = a_model(folder / "models" / "small-F16.gguf")
        self._server = script(folder / "llama-server", *FAKE)
        self.main, self.pi, self.nuc = (
            Machine(folder / name, stack, self.url) for name in ("main", "pi", "nuc")
        )
        assert self.main.run("token", "new").startswith("0")
        self.process = self.balance()

    def balance(self) -> subprocess.Popen[bytes]:
        nodes = [f"--node=http://127.0.0.1:{port}" for port in self.ports.values()]
        flags = ("--approve", "--anonymous", "--no-discover", "--host", "127.0.0.1")
        process = self.main.start(
            *("balancer", "start", "--port", str(self.port), "--policy", "least-busy"),
            *(*flags, *nodes),
        )
        until(self.answers, "the balancer answers")
        return process

    def answers(self) -> bool:
        try:
            self.nodes()
        except urllib.error.URLError:
            return False
        return True

    def restart(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0
        self.process = self.balance()

    def join(self, machine: Machine, name: str) -> subprocess.Popen[bytes]:
        port = str(self.ports[name])
        flags = ("--name", name, "--port", port, "--yes")
        process = machine.start("join", self.url, *flags)
        machine.said(r"code (\d{3}-\d{3})")
        return process

    def serve(self, machine: Machine, name: str) -> subprocess.Popen[bytes]:
        port, model = str(self.ports[name]), str(self._model)
        process = machine.start(
            *("node", "start", "--name", name, "--port", port, "--no-advertise"),
            *("--slots", "1", "--model", model, "--llama-server", str(self._server)),
        )
        until(lambda: self.state(name) == "up" and self.ready(name), f"{name} is up")
        return process

    def asked(self, what: str) -> list[dict[str, Any]]:
        with urllib.request.urlopen(
            f"{self.url}/edgeserve/v1/{what}", timeout=9
        ) as got:
            return list(json.load(got))

    def nodes(self) -> list[dict[str, Any]]:
        return self.asked("nodes")

    def revoke(self, name: str) -> None:
        key = self.main.folder / "state" / f"admin-{self.port}.key"
        asked = urllib.request.Request(
            f"{self.url}/edgeserve/v1/nodes/{name}/revoke",
            b"{}",
            {"authorization": f"Bearer {key.read_text().strip()}"},
        )
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
            assert answer.status == 200

    def state(self, name: str) -> str | None:
        found = (each["state"] for each in self.nodes() if each["name"] == name)
        return next(found, None)

    def ready(self, name: str) -> bool:
        reports = [n["report"] for n in self.nodes() if n["name"] == name]
        engines = [engine for each in reports if each for engine in each["engines"]]
        return any(each["state"] == "ready" for each in engines)

    def stream(self) -> Iterator[bytes]:
        body = {
            "model": "small",
            "messages": [{"role": "user", "content": "hello"}],
            "stream": True,
            "max_tokens": TOKENS,
        }
        asked = urllib.request.Request(
            f"{self.url}/v1/chat/completions",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
            yield from answer


@pytest.fixture
def fleet(tmp_path: Path) -> Generator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(tmp_path, stack)


def test_a_machine_joins_serves_and_is_revoked_while_it_answers(fleet: Fleet) -> None:
    main = fleet.main
    assert f"edgeserve join {fleet.url}" in main.log
    joining = fleet.join(fleet.pi, "pi")
    code = fleet.pi.said(r"code (\d{3}-\d{3})")
    assert f"asks to join, code {code}" in main.run("nodes")
    assert "compare again" in main.run("nodes", "approve", "pi", "--code", "000-00")
    assert main.run("nodes", "approve", "pi").startswith("0")
    assert joining.wait(PATIENCE) == 0
    assert fleet.pi.token.read_text() == main.token.read_text()
    assert fleet.pi.token.stat().st_mode & 0o777 == 0o600
    assert "edgeserve node start" in fleet.pi.log
    assert "exists" in fleet.pi.run("join", fleet.url, "--yes")

    fleet.serve(fleet.pi, "pi")
    fleet.nuc.token.parent.mkdir(parents=True)
    fleet.nuc.token.write_text(main.token.read_text())
    fleet.serve(fleet.nuc, "nuc")
    streams = [fleet.stream(), fleet.stream()]  # one at each node: it has one slot
    begun = [next(each) for each in streams]
    fleet.revoke("pi")  # at once: a command takes as long as an answer to start
    said = main.run("nodes", "revoke", "pi")
    assert said.startswith("0")
    assert "token rotate --keep-hours 0" in said
    assert fleet.state("pi") == "revoked"
    for first, stream in zip(begun, streams, strict=True):
        answer = b"".join([first, *stream])
        assert b"[DONE]" in answer
        assert b'"error"' not in answer
    attempts = [each["attempts"] for each in fleet.asked("requests")]
    cut_off = [
        each
        for each in attempts
        if any(one["node"] == "pi" and "hung up" in one["outcome"] for one in each)
    ]
    (moved,) = cut_off  # pi has one slot
    assert (moved[-1]["node"], moved[-1]["outcome"]) == ("nuc", "answered")

    fleet.restart()
    until(lambda: fleet.ready("nuc"), "nuc is back")
    assert fleet.state("pi") == "revoked"
    assert b"[DONE]" in b"".join(fleet.stream())
    assert "may join again" in main.run("nodes", "allow", "pi")
    until(lambda: fleet.state("pi") == "up", "pi is back")


def test_a_machine_that_gives_up_or_is_denied_leaves_nothing(fleet: Fleet) -> None:
    joining = fleet.join(fleet.pi, "pi")
    joining.send_signal(signal.SIGINT)
    assert joining.wait(PATIENCE) == 130
    until(lambda: fleet.state("pi") is None, "pi waits no longer")
    time.sleep(2.1)  # the pause of an address

    joining = fleet.join(fleet.nuc, "nuc")
    assert fleet.main.run("nodes", "deny", "nuc").startswith("0")
    assert joining.wait(PATIENCE) == 1
    assert "it was denied" in fleet.nuc.log
    assert not fleet.pi.token.exists()
    assert not fleet.nuc.token.exists()
    assert "Traceback" not in fleet.pi.log + fleet.nuc.log + fleet.main.log


def test_a_node_that_runs_cannot_join(fleet: Fleet) -> None:
    fleet.pi.start("node", "start", "--port", str(fleet.ports["pi"]), "--no-advertise")
    fleet.pi.said("listening on")

    said = fleet.pi.run("join", fleet.url, "--port", "0", "--yes")

    assert said.startswith("2: edgeserve: another node keeps its state")
