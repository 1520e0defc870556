"""Machines: the hosts that a page names, each with a home of its own, and a reader.

Names are real: each host's /etc/hosts has all of them.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.docs.page import Commands, Settings, Step, missing
from tests.docs.table import (
    BACKGROUND,
    HUB,
    KEY,
    LOOKS,
    NOT_HERE,
    ROOT,
    environment,
    equip,
)
from tests.docs.terminal import Terminal
from tests.fleet.network import Host, network
from tests.patience import PATIENCE

ELSEWHERE = re.compile("^(" + "|".join(NOT_HERE) + r")\b", re.MULTILINE)
"""What a block begins a line with that cannot run here."""


class PageFails(AssertionError):
    """A command of a page does not do what the page says."""


@dataclass
class Machines:
    """All that run, and the windows that are open on them."""

    folder: Path
    model: Path
    hosts: dict[str, Host] = field(default_factory=dict[str, Host])
    windows: list[tuple[str, Terminal]] = field(
        default_factory=list[tuple[str, Terminal]]
    )
    key: str = ""
    """The key that was made last: what the page's `key-…` stands for."""

    def home(self, name: str) -> Path:
        """Return the home folder of a machine's user."""
        return self.folder / name

    def follow(self, steps: Sequence[Step]) -> None:
        """Do what a page says. Raises PageFails."""
        for step in steps:
            if isinstance(step, Settings):
                self.paste(step)
            elif not ELSEWHERE.search(step.script):
                self.run(step)

    def paste(self, step: Settings) -> None:
        """Add a block to a file, as a reader does."""
        path = self.home(step.machine) / step.path.removeprefix("~/")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(step.text.replace(KEY, self.key or KEY))

    def run(self, step: Commands) -> None:
        """Run a block of commands, and hold it to what the page shows."""
        self._joined(step.machine)
        deadline = time.monotonic() + PATIENCE
        script = step.script
        while True:
            window = self._window(step.machine, script)
            script = step.last
            if step.last.startswith(BACKGROUND):
                window.shows(lambda text: not missing(text, step.shown))
            elif status := window.ended():
                raise PageFails(
                    self._told(step, [f"status 0, but {status}"], window.text)
                )
            lacks = missing(window.text, step.shown)
            if not lacks:
                break
            if not step.last.startswith(LOOKS) or time.monotonic() > deadline:
                raise PageFails(self._told(step, lacks, window.text))
        if found := re.findall(r"\bkey-[\w-]{20,}", window.text):
            self.key = found[-1]

    def _window(self, machine: str, script: str) -> Terminal:
        script = script.replace(KEY, self.key or KEY)
        host, home = self.hosts[machine], self.home(machine)
        window = Terminal(host, script, environment(home, self.model), home)
        self.windows.append((machine, window))
        return window

    def _joined(self, machine: str) -> None:
        """Wait for what a reader waits for before the next command on a machine."""
        for name, window in self.windows:
            joining = window.script.startswith("edgeserve join")
            if name == machine and joining and (status := window.ended()):
                raise PageFails(f"{window.script} ends with {status}: {window.text}")

    def _told(self, step: Commands, lacks: list[str], said: str) -> str:
        others = "".join(
            f"\n--- on {name}: {each.script}{each.text[-2000:]}"
            for name, each in self.windows
            if each.script.startswith(BACKGROUND)
        )
        lines = "\n".join(lacks)
        return f"{step.script} does not show:\n{lines}\n--- but:\n{said}{others}"

    def has_hub(self) -> None:
        """Let the hub answer, under its name in every machine's /etc/hosts."""
        script = f"exec {sys.executable} -m tests.docs.hub {self.model}"
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        hub = Terminal(self.hosts[HUB], script, env, self.folder)
        self.windows.append((HUB, hub))
        assert hub.shows(lambda text: "answers" in text), hub.text

    def close(self) -> None:
        """End all that runs."""
        for host in self.hosts.values():
            for pid in host.processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for _, window in self.windows:
            window.close()


@contextmanager
def machines(steps: Sequence[Step], folder: Path, model: Path) -> Generator[Machines]:
    """Have the machines of these steps on one network for the length of the block."""
    names = dict.fromkeys(step.machine for step in steps)
    with network() as net:
        made = Machines(folder, model, {name: net.host(name) for name in (*names, HUB)})
        table = "127.0.0.1 localhost\n" + "".join(
            f"{host.address} {host.name}\n" for host in made.hosts.values()
        )
        for name, host in made.hosts.items():
            host.has_file("hosts", table)
            equip(made.home(name), _commands(steps, name))
        try:
            made.has_hub()
            yield made
        finally:
            made.close()


def _commands(steps: Sequence[Step], machine: str) -> str:
    """Return all that is run on a machine."""
    return "".join(
        step.script
        for step in steps
        if isinstance(step, Commands) and step.machine == machine
    )
