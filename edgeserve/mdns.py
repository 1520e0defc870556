"""Multicast DNS on the right interfaces."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from zeroconf import InterfaceChoice, IPVersion
from zeroconf.asyncio import AsyncZeroconf

from edgeserve.config import LOOPBACK
from edgeserve.errors import in_words

log = logging.getLogger(__name__)

# Its warnings tell of interfaces that vanish while it looks: nothing to act on.
logging.getLogger("zeroconf").setLevel(logging.ERROR)


@asynccontextmanager
async def multicast(
    *, loopback_only: bool, instead: str
) -> AsyncGenerator[AsyncZeroconf | None]:
    """Speak mDNS for the length of the block; whatever was announced is withdrawn.

    With `loopback_only` no packet leaves this machine. Otherwise every interface is
    used, the loopback one too, so that processes on one machine find each other.
    Yields None where it cannot be spoken, after a warning that says what to use
    `instead`.
    """
    try:
        zeroconf = _opened(loopback_only)
    except OSError as error:
        log.warning("mDNS is not possible here (%s); %s", in_words(error), instead)
        yield None
        return
    try:
        yield zeroconf
    finally:
        await zeroconf.async_close()


def _opened(loopback_only: bool) -> AsyncZeroconf:
    if loopback_only:
        return AsyncZeroconf(interfaces=[LOOPBACK])
    both = IPVersion.All if socket.has_dualstack_ipv6() else IPVersion.V4Only
    return AsyncZeroconf(interfaces=InterfaceChoice.All, ip_version=both)
