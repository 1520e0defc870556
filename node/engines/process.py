"""Engine processes: run one for the length of a block, and leave none behind.

On Linux the tether ends them with this process; the records here are for other systems.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

from edgeserve.config.settings import LOOPBACK
from edgeserve.errors import in_words
from edgeserve.runtime.background import Tasks, background, declared
from edgeserve.runtime.files import read_json, remove, replace_file
from edgeserve.runtime.tether import tethered
from edgeserve.runtime.threads import openmp_environment
from node.engines.base import Command
from node.engines.output import Output

log = logging.getLogger(__name__)

SAME_SECONDS = 1.0
"""Creation times closer than this mean one process: ids are not reused so soon."""


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
                "cannot write %s: %s; if this node is killed, end process %d by hand",
                *(path, in_words(error), pid),
            )
    try:
        yield
    finally:
        remove(path)


def sweep(state_dir: Path) -> None:
    """End every recorded engine whose agent is gone, and drop stale records."""
    for path in _folder(state_dir).glob("*.json"):
        _end_leftover(path)


def _end_leftover(path: Path) -> None:
    try:
        record = read_json(path, Record)
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("removing %s, which names no engine: %s", path, in_words(error))
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
    """Whether that process runs; its id alone may have been reused."""
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


@dataclass(frozen=True)
class Look:
    """The system's view of a process; `cpu` is the time it has used, in seconds.

    `memory` is its resident memory, in bytes; `own` is the part that no file backs,
    which the system does not count as free.
    """

    cpu: float
    stopped: bool = False
    excused: bool = False
    """Whether its state explains that it does nothing."""
    memory: int = 0
    own: int = 0


STOP_SECONDS = 5.0
"""How long an engine may take to end after SIGTERM."""

LAST_WORDS_SECONDS = 1.0

OUTPUT = declared("engine output", "on-failure")

LINE_LIMIT = 2**16
"""Longest line of output, in bytes; past it the line is dropped."""

OOM_SCORE = "500"
"""When memory runs out, the kernel ends the engine, not the agent."""

EXCUSED = (psutil.STATUS_DISK_SLEEP, psutil.STATUS_TRACING_STOP, psutil.STATUS_ZOMBIE)


class Process:
    """A running engine."""

    def __init__(self, inner: asyncio.subprocess.Process, tasks: Tasks) -> None:
        self._inner = inner
        self._read = tasks.start(OUTPUT, self._keep_output).task
        self.output = Output()

    @property
    def pid(self) -> int:
        """Process id, and id of its process group."""
        return self._inner.pid

    async def ended(self) -> int:
        """Wait for the end and the last line; returns the status, -N for signal N."""
        status = await self._inner.wait()
        # Bounded: a grandchild may hold the pipe open.
        await asyncio.wait([self._read], timeout=LAST_WORDS_SECONDS)
        return status

    def look(self) -> Look | None:
        """Return the process's state; None where the system does not tell it."""
        try:
            inner = psutil.Process(self.pid)
            with inner.oneshot():
                times, status = inner.cpu_times(), inner.status()
                memory = inner.memory_info()
        except (psutil.Error, OSError):  # OSError: no descriptor is left
            return None
        return Look(
            times.user + times.system,
            stopped=status == psutil.STATUS_STOPPED,
            excused=status in EXCUSED,
            memory=memory.rss,
            own=memory.rss - getattr(memory, "shared", 0),
        )

    async def _keep_output(self) -> None:
        stream = self._inner.stdout
        assert stream is not None  # noqa: S101 - asked for at the start
        while True:
            try:
                raw = await stream.readline()
            except ValueError:  # a line past the limit
                continue
            if not raw:
                return
            log.debug("engine %d: %s", self.pid, self.output.add(raw))

    def kill(self) -> None:
        """End the whole process group at once."""
        self._signal(signal.SIGKILL)

    async def stop(self) -> None:
        """End the whole process group, by SIGTERM, then SIGKILL. Safe to cancel."""
        try:
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)  # a stopped process gets no SIGTERM
            async with asyncio.timeout(STOP_SECONDS):
                await self._inner.wait()
        except TimeoutError:
            log.warning("engine %d ignores SIGTERM", self.pid)
        finally:
            # Always: the engine's own children are in its group, too.
            self._signal(signal.SIGKILL)
        await self._inner.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


@asynccontextmanager
async def running(command: Command, state_dir: Path) -> AsyncGenerator[Process]:
    """Start `command` in its own process group; at the end of the block it is gone.

    It also ends with this process, however that ends: by the tether on Linux, and by
    `sweep` at the next start elsewhere. Raises OSError where it cannot start.
    """
    inner = await asyncio.create_subprocess_exec(
        *tethered(command.argv),
        env={**openmp_environment(), **command.env},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        limit=LINE_LIMIT,
    )
    async with background() as tasks:
        process = Process(inner, tasks)
        try:
            with contextlib.suppress(OSError):
                Path(f"/proc/{process.pid}/oom_score_adj").write_text(OOM_SCORE)  # noqa: ASYNC240 - procfs does not block
            with recorded(process.pid, state_dir):
                yield process
        finally:
            await process.stop()


def free_port() -> int:
    """Return a port on loopback that is free at this moment."""
    with socket.create_server((LOOPBACK, 0)) as sock:
        port: int = sock.getsockname()[1]
        return port
