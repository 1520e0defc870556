"""Actions: what installing does to a machine, as values that can be shown or done."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import click

from edgeserve.errors import CommandError
from edgeserve.runtime.files import remove, replace_file, replacing

AGAIN_SECONDS = 1.0

QUIET_SECONDS = 60.0
"""For a question to a program, which may hang."""


class Failed(CommandError):
    """A command that was run ended with an error."""


class Action(Protocol):
    """Something that is shown, and done."""

    def shown(self) -> str:
        """Return it as `--dry-run` prints it."""
        ...

    def do(self) -> None:
        """Do it. Raises CommandError or OSError."""
        ...


@dataclass(frozen=True)
class MakeFolder:
    """Makes a folder, if it is not there; its parents get the same rights."""

    path: Path
    mode: int = 0o755

    def shown(self) -> str:
        """Return it as a command."""
        return f"mkdir -p -m {self.mode:o} {shlex.quote(str(self.path))}"

    def do(self) -> None:
        """Make it, and its parents."""
        for each in (*reversed(self.path.parents), self.path):
            if not each.exists():
                each.mkdir()
                each.chmod(self.mode)


@dataclass(frozen=True)
class Write:
    """Writes a file."""

    path: Path
    text: str
    mode: int = 0o644
    secret: bool = False

    def shown(self) -> str:
        """Return path and text; of a secret only the path."""
        text = "(a secret)" if self.secret else self.text.rstrip()
        body = "\n".join(f"    {line}".rstrip() for line in text.splitlines())
        return f"write {self.path}:\n{body}"

    def do(self) -> None:
        """Write it."""
        replace_file(self.path, self.text.encode(), mode=self.mode)
        self.path.chmod(self.mode)


@dataclass(frozen=True)
class Symlink:
    """Makes a symbolic link, or lets it lead elsewhere, in one step."""

    path: Path
    target: Path

    def shown(self) -> str:
        """Return it as a command."""
        return shlex.join(("ln", "-sfn", str(self.target), str(self.path)))

    def do(self) -> None:
        """Make the link beside it, and give it the name."""
        with replacing(self.path, durable=False) as part:
            part.symlink_to(self.target)


@dataclass(frozen=True)
class Remove:
    """Removes a file, a link or a folder, if it is there."""

    path: Path

    def shown(self) -> str:
        """Return it as a command."""
        return f"rm -rf {shlex.quote(str(self.path))}"

    def do(self) -> None:
        """Remove it."""
        if self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path)
        else:
            remove(self.path)


@dataclass(frozen=True)
class Run:
    """Runs a command."""

    argv: tuple[str, ...]
    needed: bool = True
    """Whether everything ends where it fails."""
    otherwise: str = ""
    """What to say where it fails and is not needed."""
    again_for: float = 0.0
    """Seconds in which it is tried again."""

    def shown(self) -> str:
        """Return the command line."""
        return shlex.join(self.argv)

    def do(self) -> None:
        """Run it; its output is shown if it fails. Raises Failed."""
        ends = time.monotonic() + self.again_for
        while (why := self._fault()) and time.monotonic() < ends:
            time.sleep(AGAIN_SECONDS)
        if why and self.needed:
            raise Failed(f"`{self.shown()}` failed: {why}")
        if why and self.otherwise:
            click.echo(self.otherwise, err=True)

    def _fault(self) -> str:
        try:
            done = subprocess.run(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
                # Services of the machine run as users that root's umask may shut out.
                umask=0o022,
            )
        except OSError as error:
            return error.strerror or str(error)
        if done.returncode == 0:
            return ""
        said = done.stdout.decode(errors="replace").strip()
        return said[-1500:] or f"exit status {done.returncode}"


def carry_out(actions: Iterable[Action], *, dry_run: bool) -> None:
    """Do all, one after the other, or only show them."""
    for each in actions:
        if dry_run:
            click.echo(each.shown())
        else:
            each.do()


def quietly(*argv: str) -> str | None:
    """Return what a command prints; None where it cannot be run, fails or hangs."""
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=QUIET_SECONDS,
            check=False,
        )
        if done.returncode == 0:
            return done.stdout.decode(errors="replace")
    return None
