"""The first minute on bare machines: what the README says, typed and timed.

`python -m tests.rootfs.first_minute` starts a bare Debian, installs what the README
names, clones what is committed here and runs `make up` until the line that it prints
has an answer. A second bare machine then joins by what `up --lan` prints, and answers.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import click

from tests.patience import PATIENCE
from tests.rootfs.base import NATIVE, base, impossible
from tests.rootfs.lan import lan
from tests.rootfs.machine import Limits, Machine

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CLONE = "git clone -q /mnt/edgeserve edgeserve"
"""Typed as in a house that has the repository on a disk."""

CHECKOUT = "cd edgeserve && "
SECONDS = 1800.0
MODEL = "smollm2-135m-instruct"


def packages() -> str:
    """Return the line of the README that prepares a bare machine."""
    (line,) = re.findall(r"`(apt-get update && apt-get install -y [^`]*)`", README)
    return str(line)


@dataclass
class Step:
    """A command that was typed on a machine, and how long it took."""

    machine: str
    command: str
    seconds: float


@dataclass
class Steps:
    """All that was typed, in order."""

    folder: Path
    done: list[Step] = field(default_factory=list[Step])

    def type(self, on: Machine, command: str, before: str = CHECKOUT) -> str:
        """Type a command that ends by itself; return what it says."""
        began = time.monotonic()
        said = on.run(before + command, timeout=SECONDS)
        self._note(on, command, began)
        return said.stdout + said.stderr

    def until(self, on: Machine, command: str, sign: str) -> Running:
        """Type a command that goes on; return when it has said something."""
        began = time.monotonic()
        log = self.folder / f"{on.name}-{len(self.done)}.log"
        running = Running(on, on.spawn(CHECKOUT + command, log), log)
        running.wait(sign)
        self._note(on, command, began)
        return running

    def _note(self, on: Machine, command: str, began: float) -> None:
        step = Step(on.name, command, time.monotonic() - began)
        self.done.append(step)
        shown = command if len(command) < 70 else f"{command[:66]} ..."
        click.echo(f"{step.seconds:6.1f} s  {on.name:7} {shown}")

    def table(self, machines: Sequence[str]) -> str:
        """Sum up, for each machine: commands typed, seconds waited."""
        rows = list[str]()
        for name in machines:
            its = [each for each in self.done if each.machine == name]
            seconds = sum(each.seconds for each in its)
            rows.append(f"{name}: {len(its)} commands, {seconds:.0f} s")
        return "\n".join(rows)


@dataclass
class Running:
    """A command that goes on, and what it has said."""

    on: Machine
    process: subprocess.Popen[bytes]
    log: Path

    def wait(self, sign: str) -> None:
        """Wait until it has said something. Fails if it ends before."""
        deadline = time.monotonic() + SECONDS
        while sign not in self.log.read_text():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"{self.on.name}: no {sign!r}: {self.log.read_text()}"
                )
            time.sleep(0.05)

    def interrupt(self) -> None:
        """Do what Ctrl-C does: signal all that run in that terminal."""
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(PATIENCE)
        with suppress(ProcessLookupError):
            while True:
                os.killpg(self.process.pid, 0)
                time.sleep(0.05)

    def ended(self) -> None:
        """Wait until it has ended by itself."""
        if self.process.wait(SECONDS):
            raise RuntimeError(f"{self.on.name}: {self.log.read_text()}")


def curl_line(said: str) -> str:
    """Find the line that gets an answer."""
    (line,) = re.findall(r"^ *(curl .*)$", said, re.MULTILINE)
    return str(line)


def content(answer: str) -> str:
    """Return what a model answered. Fails where it answered nothing."""
    text = json.loads(answer)["choices"][0]["message"]["content"]
    if not text:
        raise RuntimeError(f"nothing was answered: {answer}")
    return str(text)


def alone(first: Machine, steps: Steps) -> None:
    """One machine, from nothing to an answer."""
    steps.type(first, packages(), "")
    steps.type(first, CLONE, "")
    up = steps.until(first, "make up", "Ctrl-C stops it")
    answer = steps.type(first, curl_line(up.log.read_text()))
    click.echo(f"          answer: {content(answer)!r}")
    up.interrupt()


def together(first: Machine, second: Machine, steps: Steps) -> None:
    """A second machine, from nothing to an answer that comes from it."""
    up = steps.until(first, "make up ARGS=--lan", "Ctrl-C stops it")
    said = up.log.read_text()
    (url,) = re.findall(r"address +(http\S+)/v1", said)
    steps.type(second, packages(), "")
    steps.type(second, CLONE, "")
    join = steps.until(second, f"make join ARGS='{url} --yes'", "approve ")
    (approve,) = re.findall(r"run there: edgeserve (nodes approve \w+)", said_by(join))
    steps.type(first, f".venv/bin/edgeserve {approve}")
    join.wait("listening on")
    steps.type(first, f".venv/bin/edgeserve pull {MODEL} --everywhere")
    began = time.monotonic()
    served = _answered_by(first, curl_line(said), second.name)
    click.echo(f"{time.monotonic() - began:6.1f} s  until an answer: {served!r}")
    join.interrupt()
    up.interrupt()


def said_by(running: Running) -> str:
    """Return what a command has said so far, once its line is whole."""
    running.wait("\n")
    return running.log.read_text()


def _answered_by(machine: Machine, line: str, node: str) -> str:
    """Ask until a certain node answers, several at once; return the answer."""
    asking = line.replace("curl -sS", "curl -sS -D /dev/stderr", 1)
    burst = f"{asking} >/tmp/a$each 2>/tmp/h$each"
    script = f"cd edgeserve; for each in 1 2 3 4 5 6; do {burst} & done; wait; "
    script += f"grep -il 'x-edgeserve-node: {node}' /tmp/h?"
    deadline = time.monotonic() + SECONDS
    while True:
        found = machine.run(script, check=False).stdout.split()
        if found:
            return content(machine.run(f"cat /tmp/a{found[0][-1]}").stdout)
        if time.monotonic() > deadline:
            raise RuntimeError(f"{node} answers nothing")


@contextmanager
def repository() -> Generator[Path]:
    """Clone what is committed here into a folder that bare machines can see."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "edgeserve.git"
        argv = ["git", "clone", "--quiet", "--bare", str(ROOT), str(path)]
        subprocess.run(argv, check=True)
        yield path


def measure() -> None:
    """Run both, and print the figures."""
    root = base()
    with repository() as shared, tempfile.TemporaryDirectory() as logs, lan() as net:
        limits = Limits(shares={shared: "/mnt/edgeserve"})
        steps = Steps(Path(logs))
        with net.machine(root, "first", limits) as first:
            alone(first, steps)
            until_answer = steps.table(["first"])
            with net.machine(root, "second", limits) as second:
                together(first, second, steps)
                click.echo(f"\nto an answer: {until_answer}")
                click.echo(f"in all: {steps.table(['first', 'second'])}")


if __name__ == "__main__":
    if (reason := impossible(NATIVE)) is not None:
        sys.exit(reason)
    measure()
