"""A bare machine: a root file system of its own, in namespaces of its own.

It has its own mounts, processes, host name and, with a host of `tests.fleet.network`,
its own network. What it writes is in a folder that goes with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.patience import PATIENCE
from tests.rootfs.base import cache

START = Path(__file__).parent / "start.sh"
SECONDS = 600.0
LOGIN = {
    "HOME": "/root",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "TERM": "linux",
}
"""What a minimal Debian gives to a login of root: no language, no user name."""

NAMESPACES = ["--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"]


@dataclass(frozen=True)
class Limits:
    """How a machine differs from a plain one."""

    read_only: bool = False
    shm: str = ""
    """Size of /dev/shm as tmpfs has it: "64m"."""
    shares: Mapping[Path, str] = field(default_factory=dict[Path, str])
    """Folders of this machine, and where they are seen, read-only."""
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    """What is in the root file system beside what the base has: path and text."""


PLAIN = Limits()


@dataclass
class Machine:
    """A machine that runs."""

    name: str
    pid: int
    """Its first process, as the outside numbers it."""
    folder: Path

    def outside(self, path: str) -> Path:
        """Return where a file that was written in there is seen from here."""
        return self.folder / "upper" / path.lstrip("/")

    def enter(self, script: str, environ: Mapping[str, str] = LOGIN) -> list[str]:
        """Make the command that runs a line of shell in there."""
        told = [f"{name}={value}" for name, value in environ.items()]
        inside = ["nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-n", "-p", "-r"]
        home = f"--chdir={environ.get('HOME', '/')}"
        return [*inside, "env", "-i", home, *told, "/bin/sh", "-c", script]

    def run(
        self,
        script: str,
        environ: Mapping[str, str] = LOGIN,
        *,
        timeout: float = SECONDS,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a line of shell in there, or fail with what it said last."""
        done = subprocess.run(
            self.enter(script, environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode:
            said = (done.stdout + done.stderr)[-3000:]
            raise RuntimeError(f"{self.name}: {script}: {done.returncode}\n{said}")
        return done

    def spawn(
        self, script: str, log: Path, environ: Mapping[str, str] = LOGIN
    ) -> subprocess.Popen[bytes]:
        """Start a line of shell in there; its output goes to `log`, on this side."""
        with log.open("ab") as out:
            return subprocess.Popen(
                self.enter(script, environ),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )


@contextmanager
def machine(
    base: Path, name: str, namespace: str = "", limits: Limits = PLAIN
) -> Generator[Machine]:
    """Start a machine for the length of the block; all of it goes, whatever happens.

    `base` is the folder of a root file system, which stays as it is. Without the name
    of a network namespace it has the network of this machine.
    """
    folder = _folder(name)
    for path, text in _files(name, limits).items():
        target = folder / "upper" / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    first = _start(base, folder, name, namespace, limits)
    try:
        assert first.stdout is not None
        pid = first.stdout.readline()
        if not pid:
            raise RuntimeError(f"{name} did not start: {(folder / 'log').read_text()}")
        yield Machine(name, int(pid), folder)
    finally:
        _end(first)
        shutil.rmtree(folder)


def _start(
    base: Path, folder: Path, name: str, namespace: str, limits: Limits
) -> subprocess.Popen[bytes]:
    shares = [f"{source}={target}" for source, target in limits.shares.items()]
    network = ["ip", "netns", "exec", namespace] if namespace else []
    environ = {
        "PATH": os.environ["PATH"],
        "SHM": limits.shm,
        "READ_ONLY": "yes" if limits.read_only else "",
    }
    begin = ["sh", str(START), str(base), str(folder), name, *shares]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [*network, "unshare", *NAMESPACES, *begin],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )


def _end(first: subprocess.Popen[bytes]) -> None:
    """Close the input of the first process; with it all of the machine's end."""
    try:
        first.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        first.kill()
        first.communicate()


def _files(name: str, limits: Limits) -> dict[str, str]:
    """Return what tells a machine its name, and whom this house trusts."""
    house = Path("/usr/local/share/ca-certificates")
    trusted = {str(each): each.read_text() for each in house.glob("*.crt")}
    names = {
        "/etc/hostname": f"{name}\n",
        "/etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {name}\n",
    }
    return trusted | names | dict(limits.files)


def _folder(name: str) -> Path:
    """Make a folder for one run; remove those that killed runs left behind."""
    runs = cache() / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    for left in runs.iterdir():
        if not Path("/proc", left.name.partition("-")[0]).exists():
            shutil.rmtree(left, ignore_errors=True)
    folder = runs / f"{os.getpid()}-{name}-{uuid.uuid4().hex[:6]}"
    for each in ("upper", "work", "root"):
        (folder / each).mkdir(parents=True)
    return folder
