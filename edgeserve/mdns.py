"""Multicast DNS on the right interfaces, kept right as they come and go."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from zeroconf import InterfaceChoice, IPVersion
from zeroconf.asyncio import AsyncZeroconf

from edgeserve.config import LOOPBACK

# Its warnings are about interfaces that vanish while it looks at them: nothing to act on.
logging.getLogger("zeroconf").setLevel(logging.ERROR)


@asynccontextmanager
async def multicast(*, loopback_only: bool) -> AsyncGenerator[AsyncZeroconf]:
    """Speak mDNS for the length of the block; whatever was announced is withdrawn.

    With `loopback_only` no packet leaves this machine. Otherwise every interface is
    used, the loopback one too, so that processes on one machine find each other.
    Raises OSError where port 5353 cannot be used.
    """
    if loopback_only:
        zeroconf = AsyncZeroconf(interfaces=[LOOPBACK])
    else:
        both = IPVersion.All if socket.has_dualstack_ipv6() else IPVersion.V4Only
        zeroconf = AsyncZeroconf(interfaces=InterfaceChoice.All, ip_version=both)
    try:
        yield zeroconf
    finally:
        await zeroconf.async_close()
