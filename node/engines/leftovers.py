"""Engines that outlived their agent: a record of each, and their end at the next start.

On Linux the tether leaves none; this is for the platforms without it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psutil

from edgeserve.errors import in_words
from edgeserve.files import read_json, remove, replace_file

log = logging.getLogger(__name__)

SAME_SECONDS = 1.0
"""Creation times closer than this are one process; ids come round far more slowly."""


class Record(msgspec.Struct, frozen=True):
    """An engine and its agent, each by process id and creation time (epoch seconds)."""

    engine: int
    engine_created: float
    agent: int
    agent_created: float


@contextmanager
def recorded(pid: int, state_dir: Path) -> Generator[None]:
    """Keep a record of engine `pid` for the length of the block."""
    path = _folder(state_dir) / f"{pid}.json"
    created, agent = created_at(pid), os.getpid()
    if created is not None:
        record = Record(pid, created, agent, created_at(agent) or 0.0)
        try:
            replace_file(path, msgspec.json.encode(record), durable=False)
        except OSError as error:
            log.warning(
                "cannot write %s: %s; should this node be killed, end process %d"
                " by hand",
                *(path, in_words(error), pid),
            )
    try:
        yield
    finally:
        remove(path)


def sweep(state_dir: Path) -> None:
    """End every recorded engine whose agent is gone, and drop stale records."""
    for path in _folder(state_dir).glob("*.json"):
        _settle(path)


def _settle(path: Path) -> None:
    try:
        record = read_json(path, Record)
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("%s names no engine: %s; it goes", path, in_words(error))
        remove(path)
        return
    if alive(record.agent, record.agent_created):
        return
    if alive(record.engine, record.engine_created):
        log.warning("ending engine %d, left over from an earlier run", record.engine)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(record.engine, signal.SIGKILL)
    remove(path)


def alive(pid: int, created: float) -> bool:
    """Whether that very process runs; its id alone may have come round."""
    now = created_at(pid)
    return now is not None and abs(now - created) < SAME_SECONDS


def created_at(pid: int) -> float | None:
    """When a process was created, or None where there is none."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return process.create_time()
    except psutil.Error:
        return None


def _folder(state_dir: Path) -> Path:
    return state_dir / "engines" / "running"
