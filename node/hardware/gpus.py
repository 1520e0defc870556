"""GPUs: the cards of this machine and their memory, for NVIDIA and AMD."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE

from edgeserve.errors import in_words
from edgeserve.reports.hardware import Gpu
from edgeserve.runtime.log import warn_once
from node.hardware.readings import OURS, entries, number, text

log = logging.getLogger(__name__)

MIB = 2**20
SECONDS = 10.0
"""How long `nvidia-smi` may take: seconds, where the driver has to wake up."""

KILL_SECONDS = 1.0

MISSES = 2
"""A GPU counts as gone after it is missing from this many looks in a row."""

CARD = re.compile(r"card\d+")

QUESTION = (
    "nvidia-smi",
    "--query-gpu=name,memory.total,memory.free",
    "--format=csv,noheader,nounits",
)


class Gpus:
    """Finds the GPUs at each call: one may appear later, and a look may fail.

    A known GPU stays until two looks in a row have missed it: `nvidia-smi` fails at
    times, while a driver wakes up or the machine is busy.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._seen: tuple[Gpu, ...] | None = None
        self._missed = 0

    def __call__(self) -> tuple[Gpu, ...]:
        """Return the GPUs of now."""
        found, seen = gpus(self._root), self._seen
        if seen is not None and len(found) < len(seen) and self._missed < MISSES - 1:
            self._missed += 1
            return seen
        if seen is not None and len(found) > len(seen):
            names = ", ".join(each.name for each in found)
            log.info("there are GPUs now: %s; restart the node to use new ones", names)
        self._seen, self._missed = found, 0
        return found


def gpus(root: Path = Path("/")) -> tuple[Gpu, ...]:
    """Return every GPU found."""
    return (*parse_nvidia(program_output(QUESTION, SECONDS)), *_amd(root))


def program_output(argv: tuple[str, ...], seconds: float) -> str:
    """Return a program's output, or "" where it is missing, slow or fails."""
    try:
        return _run(argv, seconds)
    except FileNotFoundError:
        return ""
    except (OSError, subprocess.SubprocessError) as error:
        if isinstance(error, OSError) and error.errno in OURS:
            raise
        warn_once(log, f"{argv[0]} gives no answer: {_why(error)}")
        return ""


def failure_of(argv: tuple[str, ...], seconds: float) -> str:
    """Run a program; return why it failed, "" where it did not."""
    try:
        _run(argv, seconds)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{argv[0]} failed: {_why(error)}"
    return ""


_hung: dict[str, subprocess.Popen[bytes]] = {}
"""Programs that SIGKILL has not ended: they wait for a driver that hangs."""


def _run(argv: tuple[str, ...], seconds: float) -> str:
    """Run a program for at most `seconds`. `subprocess.run` would wait for its end."""
    if argv[0] in _hung:
        if _hung[argv[0]].poll() is None:
            return ""
        del _hung[argv[0]]
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        start_new_session=True,  # so that what a shell has started ends with it
    )
    assert process.stdout is not None  # noqa: S101 - asked for
    assert process.stderr is not None  # noqa: S101 - as well
    with process.stdout, process.stderr:
        try:
            output, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            _end(process, argv[0])
            raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, argv, output, errors)
    return output.decode(errors="replace")


def _end(process: subprocess.Popen[bytes], name: str) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        process.wait(KILL_SECONDS)
    except subprocess.TimeoutExpired:
        _hung[name] = process


def _why(error: Exception) -> str:
    """Return how a program failed, by its own output where there is any."""
    if isinstance(error, subprocess.TimeoutExpired):
        return f"it took more than {error.timeout:g} s"
    if isinstance(error, subprocess.CalledProcessError):
        words = (error.stderr or error.output).decode(errors="replace").split()
        return " ".join(words)[:200] or f"it ended with status {error.returncode}"
    return in_words(error)


def parse_nvidia(table: str) -> tuple[Gpu, ...]:
    """Parse `nvidia-smi`'s table; a line with `[N/A]`, as on Jetson, is left out."""
    rows = [line.rsplit(",", 2) for line in table.splitlines()]
    return tuple(
        Gpu(
            name=row[0].strip(),
            memory_total=int(row[1]) * MIB,
            memory_free=int(row[2]) * MIB,
        )
        for row in rows
        if len(row) == 3 and row[1].strip().isdecimal() and row[2].strip().isdecimal()
    )


def _amd(root: Path) -> list[Gpu]:
    found: list[Gpu] = []
    cards = entries(root / "sys/class/drm")
    for device in [each / "device" for each in cards if CARD.fullmatch(each.name)]:
        total = number(device / "mem_info_vram_total")
        used = number(device / "mem_info_vram_used")
        if total is None or used is None:
            continue
        name = text(device / "product_name") or "AMD GPU"
        found.append(Gpu(name=name, memory_total=total, memory_free=total - used))
    return found
