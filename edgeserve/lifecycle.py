"""Run one server from start to exit status: event loop, signals, drain, force."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable

Serve = Callable[[asyncio.Event], Awaitable[None]]

FORCED = 130
"""Exit status after a second signal: running work was cut off."""


def run(serve: Serve, *, log_level: str = "info") -> int:
    """Run `serve(stop)` and return the exit status.

    The first SIGINT or SIGTERM sets `stop`: drain and leave, status 0. The second
    cancels `serve`: leave now, status 130.
    """
    logging.basicConfig(
        level=log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
    )
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_until_stopped(serve))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _until_stopped(serve: Serve) -> int:
    stop = asyncio.Event()
    serving = asyncio.ensure_future(serve(stop))

    def on_signal() -> None:
        if stop.is_set():
            serving.cancel()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    try:
        await serving
    except asyncio.CancelledError:
        if stop.is_set():
            return FORCED
        raise
    return 0
