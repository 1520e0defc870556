"""Run an engine's process for the length of a block, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from edgeserve.background import Tasks, background, declared
from edgeserve.tether import tethered
from node.engines import leftovers
from node.engines.output import Output
from node.engines.protocol import Command
from node.pulse import Look
from quantize.calm import calm

log = logging.getLogger(__name__)

STOP_SECONDS = 5.0
"""How long an engine may take to leave after SIGTERM."""

LAST_WORDS_SECONDS = 1.0

OUTPUT = declared("engine output", "on-failure")

LINE_LIMIT = 2**16
"""Longest line of output, in bytes; past it the line is dropped."""

OOM_SCORE = "500"
"""Where memory runs out, the kernel shall take the engine, not the agent."""

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
        """See what it does now; None where the system does not say."""
        try:
            inner = psutil.Process(self.pid)
            with inner.oneshot():
                times, status = inner.cpu_times(), inner.status()
                memory = inner.memory_info().rss
        except (psutil.Error, OSError):  # OSError: no descriptor left to look with
            return None
        return Look(
            times.user + times.system,
            stopped=status == psutil.STATUS_STOPPED,
            excused=status in EXCUSED,
            memory=memory,
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
        """End the whole process group: politely, then not. Safe to cancel."""
        try:
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)  # one that is stopped would not hear of it
            async with asyncio.timeout(STOP_SECONDS):
                await self._inner.wait()
        except TimeoutError:
            log.warning("engine %d ignores SIGTERM", self.pid)
        finally:
            # Always: what the engine itself started is in its group too.
            self._signal(signal.SIGKILL)
        await self._inner.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


@asynccontextmanager
async def running(command: Command, state_dir: Path) -> AsyncGenerator[Process]:
    """Start `command` in its own process group; at the end of the block it is gone.

    It also dies with this process, however that ends: by the tether on Linux, and by
    `leftovers.sweep` at the next start elsewhere. Raises OSError where it cannot start.
    """
    inner = await asyncio.create_subprocess_exec(
        *tethered(command.argv),
        env={**calm(), **command.env},
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
            with leftovers.recorded(process.pid, state_dir):
                yield process
        finally:
            await process.stop()
