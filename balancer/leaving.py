"""How one balancer process leaves when another goes on with its port."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from balancer.desk import Desk
from balancer.doorkeeper import Doorkeeper
from balancer.heir import bequeathed
from balancer.takeover import door, offering
from edgeserve.config import BalancerSettings
from edgeserve.errors import SettingsError, in_words
from edgeserve.relay import Leave

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_door(
    settings: BalancerSettings, sock: socket.socket, shared: Desk
) -> AsyncGenerator[asyncio.Event]:
    """Let another process take over, where the state folder allows it."""
    port = sock.getsockname()[1]
    path = door(settings.state_dir, port)
    async with AsyncExitStack() as stack:
        try:
            taken = await stack.enter_async_context(
                offering(path, sock, lambda: bequeathed(shared))
            )
        except (SettingsError, OSError) as error:
            log.warning("--takeover will not work: %s", in_words(error))
            taken = asyncio.Event()
        yield taken


async def left(
    leave: Leave, doorkeeper: Doorkeeper, stop: asyncio.Event, seconds: float
) -> None:
    """Wait until nobody is connected; idle connections are not waited for as long.

    What is asked on a connection that was open before is answered here, however long
    that takes.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    while not (stop.is_set() or leave.left.is_set()):
        now = asyncio.get_running_loop().time()
        if now > deadline and not doorkeeper.inside:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await first(stop, leave.left)


async def first(*events: asyncio.Event) -> None:
    """Wait until one of them is set."""
    tasks = [asyncio.create_task(each.wait()) for each in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
