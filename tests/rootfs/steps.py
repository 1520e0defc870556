"""Steps: what a newcomer types on bare machines, and how long each takes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import click

from tests.patience import PATIENCE
from tests.rootfs.machine import LOGIN, Machine

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
REPOSITORY = "/mnt/edgeserve"
CLONE = f"git clone -q {REPOSITORY} edgeserve"
"""Typed as in a house that has the repository on a disk."""

CHECKOUT = "cd edgeserve && "
SECONDS = 1800.0


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
    environ: Mapping[str, str] = field(default_factory=lambda: LOGIN)
    done: list[Step] = field(default_factory=list[Step])

    def type(self, on: Machine, command: str, before: str = CHECKOUT) -> str:
        """Type a command that ends by itself; return what it says."""
        began = time.monotonic()
        said = on.run(before + command, self.environ, timeout=SECONDS)
        self._note(on, command, began)
        return said.stdout + said.stderr

    def until(self, on: Machine, command: str, sign: str) -> Running:
        """Type a command that goes on; return when it has said something."""
        began = time.monotonic()
        log = self.folder / f"{on.name}-{len(self.done)}.log"
        running = Running(on, on.spawn(CHECKOUT + command, log, self.environ), log)
        running.wait(sign)
        self._note(on, command, began)
        return running

    def wait(self, running: Running, sign: str) -> None:
        """Wait until a command that goes on has said something more."""
        began = time.monotonic()
        running.wait(sign)
        self._note(running.on, f"({sign})", began)

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
            typed = [each for each in its if not each.command.startswith("(")]
            rows.append(f"{name}: {len(typed)} commands, {seconds:.0f} s")
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

    def said(self) -> str:
        """Return what it has said so far, once its last line is whole."""
        while not (said := self.log.read_text()).endswith("\n"):
            time.sleep(0.05)
        return said

    def interrupt(self) -> None:
        """Do what Ctrl-C does: signal all that run in that terminal."""
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(PATIENCE)
        with suppress(ProcessLookupError):
            while True:
                os.killpg(self.process.pid, 0)
                time.sleep(0.05)


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


@contextmanager
def repository() -> Generator[Path]:
    """Clone what is committed here into a folder that bare machines can see."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "edgeserve.git"
        argv = ["git", "clone", "--quiet", "--bare", str(ROOT), str(path)]
        subprocess.run(argv, check=True)
        yield path
