"""Child processes: starts several, which end together with this process."""

from __future__ import annotations

import asyncio
import signal
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from edgeserve.errors import CommandError
from edgeserve.runtime.tether import tethered

FORCED_SECONDS = 3.0
"""Time for a child to exit after a second signal."""


class ChildEnded(CommandError):
    """A child ended that should run on; its own message is on the terminal."""

    def __init__(self, name: str, status: int) -> None:
        reason = f"with status {status}; see its message above"
        super().__init__(f"the {name} ended {reason if status else 'by itself'}")
        self.exit_status = status if status > 0 else 1


@dataclass(frozen=True)
class Child:
    """A running child process."""

    name: str
    process: Process

    async def ended(self) -> NoReturn:
        """Wait until it ends, and raise ChildEnded."""
        raise ChildEnded(self.name, await self.process.wait())


@asynccontextmanager
async def running(
    name: str, argv: Sequence[str], *, grace: float
) -> AsyncGenerator[Child]:
    """Run a child for the length of the block; it has `grace` seconds to drain.

    It has a session of its own, so that Ctrl-C reaches it once, through this process.
    It gets SIGTERM too when this process is killed.
    """
    process = await asyncio.create_subprocess_exec(
        *tethered(argv, signal.SIGTERM),
        stdin=DEVNULL,
        stdout=DEVNULL,
        start_new_session=True,
    )
    try:
        yield Child(name, process)
    except asyncio.CancelledError:
        grace = FORCED_SECONDS
        raise
    finally:
        await _end(process, grace)


async def _end(process: Process, grace: float) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(grace):
            await process.wait()
    except TimeoutError:
        pass
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def first(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait for the first, raise what it raises, and cancel the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
