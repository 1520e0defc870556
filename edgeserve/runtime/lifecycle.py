"""Process lifecycle: runs the event loop, handles signals, returns the exit status."""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

import uvloop

Serve = Callable[[asyncio.Event], Awaitable[None]]

MOST_FILES = 65536

SETTLE_SECONDS = 3.0
"""After this time the objects that live as long as the process exist."""

COLLECT_AFTER = (20_000, 20, 20)
"""Thresholds of the garbage collector; requests leave few reference cycles."""

FORCED = 130
"""Exit status after a second signal: running work was aborted."""


def run(serve: Serve, *, log_level: str = "info") -> int:
    """Run `serve(stop)` and return the exit status.

    The first SIGINT or SIGTERM sets `stop`: drain and exit, status 0. The second
    cancels `serve`: exit now, status 130.

    The log goes to standard error. Lines for the person at the terminal go to standard
    output, without time and module.
    """
    logging.basicConfig(
        level=log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
    )
    for each in CHATTY:
        logging.getLogger(each).setLevel(max(logging.WARNING, logging.root.level))
    with (
        _handlers_restored(),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        _allow_many_connections()
        return runner.run(_until_stopped(serve))


CHATTY = ("httpx", "httpx2")
"""Libraries that log each request, with its query, as information."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def _handlers_restored() -> Generator[None]:
    """Restore the signal handlers at the end: uvloop leaves its own, which do nothing.

    A command that goes on, as to ask at the terminal, is then stopped by Ctrl-C again.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _allow_many_connections() -> None:
    """Raise the soft limit on open files to the hard one, at most `MOST_FILES`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _settle() -> None:
    """Exclude the objects of today from garbage collection, and collect less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


async def _until_stopped(serve: Serve) -> int:
    stop = asyncio.Event()
    serving = asyncio.ensure_future(serve(stop))

    def on_signal() -> None:
        if stop.is_set():
            serving.cancel()
        stop.set()

    loop = asyncio.get_running_loop()
    loop.call_later(SETTLE_SECONDS, _settle)
    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal)
    try:
        await serving
    except asyncio.CancelledError:
        if stop.is_set():
            return FORCED
        raise
    return 0


@contextmanager
def interruptible() -> Generator[None]:
    """Turn SIGTERM into KeyboardInterrupt for the length of the block."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
