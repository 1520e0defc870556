"""Conversion: run the converter as a child process, and read its progress."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgeserve.cli.convert.converter import OWN_GGUF, SCRIPT
from edgeserve.errors import CommandError
from edgeserve.runtime.files import replace_file
from edgeserve.runtime.tether import tethered
from node.engine_build.source import Show
from node.engines.output import ending

NEEDED = {
    "torch": "torch",
    "transformers": "transformers",
    "sentencepiece": "sentencepiece",
    "google.protobuf": "protobuf",
    "yaml": "pyyaml",
}
"""What the converter imports → the package that has it."""

TENSOR = re.compile(r"\S+,\s+torch\.\w+ --> \w+, shape = ")
WRITTEN = re.compile(r"Writing: +(\d+)%")
UNKNOWN = re.compile(r"Model (\S+) is not supported|Architecture '(\S+)' not supported")
MODULE = re.compile(r"No module named '([\w.]+)'")

KEPT_LINES = 5_000
"""Lines of the output that a log of a failure has at most."""


class ExtraMissing(CommandError):
    """What the converter needs is not installed; the message says how to install it."""

    def __init__(self, packages: list[str]) -> None:
        super().__init__(
            f"this needs {', '.join(packages)}: `pip install '.[convert]'` in the"
            " project's folder; PyTorch's build for CPUs is enough and saves gigabytes"
            " where it is installed first"
        )


class ConverterFailed(CommandError):
    """The converter made no file; the message has its reason."""


class UnknownArchitecture(ConverterFailed):
    """The converter does not know this kind of model."""

    def __init__(self, architecture: str) -> None:
        super().__init__(
            f"this llama.cpp cannot convert {architecture}; a newer one may: name its"
            " folder with --source, and serve the model with an engine as new"
        )


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """One run of the converter in `scripts`; a failure leaves its output in `log`."""

    scripts: Path
    folder: Path
    target: Path
    kind: str
    tensors: int
    log: Path
    name: str | None = None


def require_extra() -> None:
    """Raise ExtraMissing if the converter could not start."""
    missing = [package for name, package in NEEDED.items() if not _is_there(name)]
    if missing:
        raise ExtraMissing(missing)


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of its parent
        return False


def convert(conversion: Conversion, show: Show) -> None:
    """Write the target. Raises ConverterFailed or ExtraMissing."""
    lines = list[str]()
    read = 0
    show("reading", 0, conversion.tensors)
    with _running(conversion) as child:
        assert child.stdout is not None  # noqa: S101 - what PIPE means
        for line in _lines(child.stdout):
            if TENSOR.search(line):
                read += 1
                show("reading", min(read, conversion.tensors), conversion.tensors)
            elif found := WRITTEN.match(line):
                show("reading", conversion.tensors, conversion.tensors)
                show("writing", int(found[1]), 100)
            else:
                lines = [*lines[-KEPT_LINES:], line]
    if child.returncode != 0:
        raise _failure(child.returncode, lines, conversion)
    if not conversion.target.is_file():
        raise ConverterFailed("the converter ended without an error, but made no file")
    show("writing", 100, 100)


def _command(conversion: Conversion) -> list[str]:
    # The converter fills in braces of a name, as in `{ftype}`.
    name = conversion.target.name.replace("{", "{{").replace("}", "}}")
    script = str(conversion.scripts / SCRIPT)
    called = ["--model-name", conversion.name] if conversion.name else []
    return [
        *(sys.executable, script, str(conversion.folder)),
        *("--outfile", str(conversion.target.absolute().with_name(name))),
        *("--outtype", conversion.kind, *called),
    ]


def _environment(scripts: Path) -> dict[str, str]:
    """Return the environment: the converter's own gguf first, nothing is fetched."""
    inherited = {k: v for k, v in offline().items() if k != "NO_LOCAL_GGUF"}
    paths = [str(scripts / OWN_GGUF), *filter(None, [inherited.get("PYTHONPATH")])]
    return {
        **inherited,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
    }


def offline() -> dict[str, str]:
    """Return the environment of a process whose libraries must not fetch anything."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@contextmanager
def _running(conversion: Conversion) -> Generator[subprocess.Popen[bytes]]:
    """Run in its own process group, which ends with the block."""
    child = subprocess.Popen(
        tethered(_command(conversion)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # Only the parent gets Ctrl-C; it ends the child and cleans up.
        start_new_session=True,
        env=_environment(conversion.scripts.absolute()),
    )
    try:
        yield child
        child.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def _lines(stream: IO[bytes]) -> Iterator[str]:
    """Yield lines; progress bars end theirs with a carriage return."""
    left = b""
    while piece := os.read(stream.fileno(), 2**16):
        *whole, left = re.split(rb"[\r\n]+", left + piece)
        yield from (line.decode(errors="replace") for line in whole if line)
    if left:
        yield left.decode(errors="replace")


def _failure(status: int, lines: list[str], conversion: Conversion) -> CommandError:
    with suppress(OSError):
        replace_file(conversion.log, "\n".join(lines).encode(), durable=False)
    text = "\n".join(lines[-50:])
    if found := UNKNOWN.search(text):
        return UnknownArchitecture(found[1] or found[2])
    if found := MODULE.search(text):
        module = found[1]
        return ExtraMissing([NEEDED.get(module, module)])
    if "pre-tokenizer was not recognized" in text:
        why = "this llama.cpp does not know its tokenizer; a newer one (--source) may"
    elif status < 0:
        why = f"the converter was {ending(status, ())}"
    else:
        why = f"the converter failed: {lines[-1] if lines else f'status {status}'}"
    return ConverterFailed(f"{why} (log: {conversion.log})")
