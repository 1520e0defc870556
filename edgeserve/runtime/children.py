"""Child processes: start several that live and end together with this one."""

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
"""What a child gets to leave after a second signal."""


class ChildEnded(CommandError):
    """A child ended that should have stayed; its own words are on the terminal."""

    def __init__(self, name: str, status: int) -> None:
        said = f"with status {status}; why, it says above" if status else "unasked"
        super().__init__(f"the {name} ended {said}")
        self.exit_status = status if status > 0 else 1


@dataclass(frozen=True)
class Child:
    """A running child process."""

    name: str
    process: Process

    async def ended(self) -> NoReturn:
        """Wait for its end, and raise ChildEnded."""
        raise ChildEnded(self.name, await self.process.wait())


@asynccontextmanager
async def running(
    name: str, argv: Sequence[str], *, grace: float
) -> AsyncGenerator[Child]:
    """Run a child for the length of the block; `grace` is what it gets to drain.

    It has a session of its own: Ctrl-C reaches it through us, once. It is asked to
    leave when we are killed, too.
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
    """Wait for the first of them, raising what it raises; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
