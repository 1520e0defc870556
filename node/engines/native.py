"""Native engine: a `llama-server` executable."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeserve.errors import EngineUnavailable
from node.engines.base import Command, EngineSpec
from node.engines.builds import build_in
from node.engines.flags import arguments, environment

NAME = "llama-server"
ASK_SECONDS = 30.0
"""`--version` may wait for a GPU driver to start."""


@dataclass(frozen=True)
class Native:
    """Runs `path`."""

    path: Path
    build: str
    kind: Literal["native"] = "native"

    def command(self, spec: EngineSpec, *, port: int, api_key: str) -> Command:
        """See `Engine.command`."""
        argv = (str(self.path), *arguments(spec, port))
        # Not in argv, which every user of the machine can read.
        return Command(argv, {"LLAMA_API_KEY": api_key, **environment(spec.launch)})


def find(named: Path | None, state_dir: Path) -> Path | None:
    """Return the configured executable, else this machine's build, else PATH's."""
    if named is not None:
        return named
    built = state_dir / "engines" / "current" / NAME
    if built.exists():
        return built
    found = shutil.which(NAME)
    return Path(found) if found else None


def native(path: Path) -> Native:
    """Check that `path` runs, and read its version. Raises EngineUnavailable."""
    version = _output(path, "--version")
    own_build = build_in(path.resolve().parent)
    if own_build is not None:
        return Native(path.absolute(), own_build.identity)
    return Native(path.absolute(), f"{build_of(version)}-{_backends(path)}")


def _backends(path: Path) -> str:
    try:
        return backends_in(_output(path, "--list-devices"))
    except EngineUnavailable:  # too old for this flag
        return "unknown"


def _output(path: Path, flag: str) -> str:
    """Return the output for a flag. Raises EngineUnavailable."""
    try:
        done = subprocess.run(
            [path, flag], capture_output=True, text=True, timeout=ASK_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        why = getattr(error, "strerror", None) or f"no answer to {flag}"
        raise EngineUnavailable(f"cannot run {path}: {why}; {HINT}") from error
    output = (done.stderr + done.stdout).strip()
    if done.returncode != 0:
        raise EngineUnavailable(f"cannot run {path}: {_why(done.returncode, output)}")
    return output


HINT = "name a llama-server with `llama_server`, or use `--engine bundled`"


def _why(status: int, output: str) -> str:
    if "libgomp" in output:
        return "it needs OpenMP; `apt-get install libgomp1`"
    line = output.splitlines()[-1] if output else f"it ends with status {status}"
    return f"{line}; {HINT}"


def build_of(output: str) -> str:
    """Return the commit in the output of `--version`, else its first line."""
    found = re.search(r"commit (\w+)|version: \d+ \((\w+)\)", output)
    if found:
        return found[1] or found[2]
    return output.splitlines()[0].removeprefix("version: ") if output else "unknown"


def backends_in(output: str) -> str:
    """Return the backends in the output of `--list-devices`: `cuda`, else `cpu`."""
    kinds = re.findall(r"^\s+([A-Za-z]+)\d+: .*MiB", output, re.MULTILINE)
    return "+".join(sorted({kind.lower() for kind in kinds})) or "cpu"
