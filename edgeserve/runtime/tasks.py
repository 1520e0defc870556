"""Tasks: wait for the first of several, and for work in a thread to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def first_of(*runners: Coroutine[Any, Any, T]) -> T:
    """Return, or raise, what the first to finish does; the others are cancelled.

    Not a TaskGroup: before Python 3.13 one that is cancelled while a child fails
    raises the child's error only, so that a loop that catches it is never cancelled.
    """
    tasks = [asyncio.ensure_future(runner) for runner in runners]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return next(task for task in tasks if task in done).result()


async def first(*events: asyncio.Event) -> None:
    """Wait until one event is set."""
    await first_of(*(each.wait() for each in events))


async def in_thread(work: Callable[..., T], *args: object) -> T:
    """Do `work` in a thread; a task that is cancelled meanwhile still waits for it.

    For writing files: a thread that outlives its task could write an older state over
    a newer one, or into a folder that is gone. `asyncio.to_thread` leaves it running.
    Raises what `work` raises.
    """
    running = asyncio.ensure_future(asyncio.to_thread(work, *args))
    try:
        return await asyncio.shield(running)
    finally:
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({running})
