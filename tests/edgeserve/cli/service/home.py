"""A home in which services of a user are installed, with a systemctl of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from edgeserve.http.sockets import bind
from tests.fakes.gguf import a_model
from tests.fleet.llama_server import script

ROOT = Path(__file__).parents[4]
SECONDS = 200


@dataclass
class Home:
    """The folders of a user, and the programs that stand in for the system's."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def software(self) -> Path:
        return self.root / "data" / "edgeserve" / "service"

    @property
    def units(self) -> Path:
        return self.root / "xdg" / "systemd" / "user"

    @property
    def notes(self) -> Path:
        return self.root / "notes"

    @property
    def calls(self) -> list[str]:
        file = self.notes / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def log(self) -> str:
        return "\n".join(each.read_text() for each in self.notes.glob("*.log"))

    def program(self, name: str, text: str) -> None:
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def service(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run `edgeserve service …` with software of this tree."""
        return subprocess.run(
            [sys.executable, "-m", "edgeserve", "service", *argv],
            env=self.environ,
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )

    def pid(self, name: str) -> int:
        return int((self.notes / f"edgeserve-{name}.pid").read_text())

    def settings(self) -> int:
        """Write settings with free ports, a model and an engine that pretends.

        Returns the node's port.
        """
        node, balancer = bind("127.0.0.1", 0), bind("127.0.0.1", 0)
        ports: list[int] = [each.getsockname()[1] for each in (node, balancer)]
        node.close()
        balancer.close()
        engine = script(self.root / "llama-server")
        (self.root / "config" / "edgeserve.toml").write_text(
            f'[node]\nport = {ports[0]}\nhost = "127.0.0.1"\nadvertise = false\n'
            f'llama_server = "{engine}"\nslots = 1\n'
            f'[balancer]\nport = {ports[1]}\nhost = "127.0.0.1"\ndiscover = false\n'
            f'nodes = ["http://127.0.0.1:{ports[0]}"]\n'
        )
        a_model(self.root / "models" / "small-F16.gguf")
        return ports[0]


def a_home(root: Path) -> Home:
    """Make the folders and the programs."""
    home = Home(root)
    for name in ("bin", "notes", "config", "state", "models", "data", "xdg"):
        (root / name).mkdir(parents=True)
    home.environ = {
        "PATH": f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(root),
        "XDG_DATA_HOME": str(root / "data"),
        "XDG_CONFIG_HOME": str(root / "xdg"),
        "EDGESERVE_CONFIG_DIR": str(root / "config"),
        "EDGESERVE_STATE_DIR": str(root / "state"),
        "EDGESERVE_MODELS_DIR": str(root / "models"),
        "FAKE_UNITS": str(home.units),
        "FAKE_SYSTEMD": str(home.notes),
        # pip takes nothing but the wheel; what that needs is beside this Python.
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "PIP_NO_DEPS": "1",
        "PIP_NO_INDEX": "1",
        "COLUMNS": "200",
    }
    fake = ROOT / "tests" / "fakes" / "systemctl.py"
    home.program("systemctl", f'exec "{sys.executable}" {fake} "$@"')
    home.program("loginctl", f'echo "loginctl $*" >>{home.notes}/calls')
    home.program("journalctl", 'echo "journalctl $*"')
    return home


@contextmanager
def living(home: Home) -> Generator[Home]:
    """Yield it; what runs there ends with the block."""
    try:
        yield home
    finally:
        for file in home.notes.glob("*.pid"):
            with suppress(ProcessLookupError):
                os.killpg(int(file.read_text()), signal.SIGKILL)


def a_release(home: Home, version: str = "0.1.0") -> Path:
    """Put a release in place that can only say its version and wait."""
    release = home.software / "releases" / "1"
    (release / "bin").mkdir(parents=True)
    command = release / "bin" / "edgeserve"
    command.write_text(
        f"#!/bin/sh\n[ $1 = --version ] && echo edgeserve, version {version} && exit\n"
        "exec sleep 1000\n"
    )
    command.chmod(0o755)
    (home.software / "current").symlink_to(release)
    return release
