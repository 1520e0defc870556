"""Bundled engine: llama.cpp's server from the xllamacpp wheel, in a child process."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from edgeserve.errors import EngineUnavailable
from node.engines.base import Command, EngineSpec
from node.engines.flags import environment, parameters
from node.hardware.readings import CPUINFO, cpu_fields

PARAMETERS = "EDGESERVE_ENGINE"
"""Environment variable that carries the child's parameters, key included, as JSON."""

ASK_SECONDS = 60.0
X86 = frozenset(("x86_64", "amd64"))
NEEDED = frozenset(("avx2", "bmi2", "f16c", "fma"))
"""Features that the x86-64 wheel is compiled for; without them it ends by SIGILL."""

NARROW = 2**31 - 1

HINT = "build or install llama-server and use `--engine native`"


@dataclass(frozen=True)
class Bundled:
    """Runs `node.engines.bundled_host` with this interpreter."""

    build: str
    kind: Literal["bundled"] = "bundled"

    def command(self, spec: EngineSpec, *, port: int, api_key: str) -> Command:
        """See `Engine.command`."""
        carried = json.dumps(parameters(spec, port, api_key))
        argv = (sys.executable, "-m", "node.engines.bundled_host")
        return Command(argv, {PARAMETERS: carried, **environment(spec.launch)})


def bundled() -> Bundled:
    """Check that the wheel is installed and loads. Raises EngineUnavailable."""
    try:
        version = metadata.version("xllamacpp")
    except metadata.PackageNotFoundError:
        here = f"{platform.system()} on {platform.machine()}"
        raise EngineUnavailable(
            narrow() or f"no bundled engine for {here}; {HINT}"
        ) from None
    refuse_old_cpu(platform.machine(), cpu_flags())
    _try_import()
    return Bundled(f"xllamacpp-{version}")


def narrow(largest: int = sys.maxsize) -> str | None:
    """Say that this is a 32-bit system, on which no engine runs, or return None."""
    if largest > NARROW:
        return None
    return (
        "this is a 32-bit system, and engines need a 64-bit one; on a Raspberry Pi 3 or"
        " later install Raspberry Pi OS (64-bit)"
    )


def cpu_flags(source: Path = CPUINFO) -> frozenset[str] | None:
    """Return the first processor's features; None where Linux does not tell them."""
    flags = cpu_fields(source).get("flags")
    return None if flags is None else frozenset(flags.split())


def refuse_old_cpu(machine: str, flags: frozenset[str] | None) -> None:
    """Raise EngineUnavailable where the wheel would end by SIGILL."""
    if machine.lower() not in X86 or flags is None or flags >= NEEDED:
        return
    missing = ", ".join(sorted(NEEDED - flags)).upper()
    raise EngineUnavailable(f"the bundled engine needs {missing}; {HINT}")


def _try_import() -> None:
    """Import it in a child process: it costs memory, and an import may crash."""
    command = [sys.executable, "-c", "import xllamacpp"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=ASK_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise EngineUnavailable(f"{error}; {HINT}") from error
    if done.returncode != 0:
        raise EngineUnavailable(explain(done.returncode, done.stderr))


def explain(status: int, output: str) -> str:
    """Return in one sentence why the import failed, and what to do."""
    if "libgomp.so.1" in output:
        return "the bundled engine needs OpenMP; `apt-get install libgomp1`"
    if status < 0:
        return f"the bundled engine crashes with signal {-status} here; {HINT}"
    line = output.strip().splitlines()[-1] if output.strip() else f"status {status}"
    return f"the bundled engine cannot be loaded: {line}; {HINT}"
