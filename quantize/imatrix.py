"""Importance matrix: make one from a text with llama-imatrix."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

from edgeserve.config.settings import NodeSettings
from edgeserve.config.sources import resolve
from edgeserve.errors import CommandError
from edgeserve.models.facts import ModelFacts
from edgeserve.models.naming import stem
from edgeserve.runtime.files import fingerprint, part_of
from edgeserve.runtime.tether import tethered
from edgeserve.runtime.threads import openmp_environment
from quantize.worker.imatrix_file import read_importance


def native_tool(name: str) -> Path | None:
    """Return the path of a llama.cpp tool, else None. Raises SettingsError.

    The build of `edgeserve engine build` comes first, then PATH.
    """
    state_dir = resolve(NodeSettings).settings.state_dir
    built = state_dir / "engines" / "current" / name
    if os.access(built, os.X_OK):
        return built
    found = shutil.which(name)
    return Path(found) if found else None


CONTEXT = 512
"""Tokens per chunk, llama-imatrix's own default."""


class CannotCalibrate(CommandError):
    """There is no llama-imatrix, or it failed; the message says which."""


def importance_matrix(
    facts: ModelFacts, text: Path, folder: Path, threads: int
) -> Path:
    """Return the matrix of `text`, a file in `folder` that is made once per text.

    Raises CannotCalibrate.
    """
    name = f"{stem(facts.path)}.{text.stem}-{fingerprint(text)[:8]}.imatrix.gguf"
    target = folder / name
    if target.exists():
        return target
    tool = native_tool("llama-imatrix")
    if tool is None:
        raise CannotCalibrate(
            "--calibrate needs llama-imatrix: `edgeserve engine build` makes it;"
            " or give a finished matrix with --imatrix"
        )
    with part_of(target) as part:
        command = [
            *(str(tool), "-m", str(facts.path), "-f", str(text), "-o", str(part)),
            *("-c", str(CONTEXT), "--output-format", "gguf"),
            *(("-t", str(threads)) if threads else ()),
        ]
        _run(command)
        read_importance(str(part))
    return target


def _run(command: list[str]) -> None:
    done = subprocess.run(
        tethered(command, signal.SIGTERM),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env=openmp_environment(),
    )
    if done.returncode != 0:
        errors = [
            line
            for line in done.stderr.splitlines()
            if re.search(r"error|fail|need at least", line, re.IGNORECASE)
        ]
        words = "; ".join(errors[-3:]) or f"status {done.returncode}"
        raise CannotCalibrate(f"llama-imatrix failed: {words}")
