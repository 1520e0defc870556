"""Multicast DNS on the right interfaces."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from zeroconf import InterfaceChoice, IPVersion
from zeroconf.asyncio import AsyncZeroconf

from edgeserve.config import LOOPBACK
from edgeserve.errors import in_words
from edgeserve.multicast import chosen

Choice = Sequence[str | int | tuple[tuple[str, int, int], int]] | InterfaceChoice
"""As zeroconf has it: IPv4 addresses, indexes of IPv6 interfaces, or all."""

log = logging.getLogger(__name__)

# Its warnings tell of interfaces that vanish while it looks: nothing to act on.
logging.getLogger("zeroconf").setLevel(logging.ERROR)


@asynccontextmanager
async def multicast(
    *, loopback_only: bool, instead: str
) -> AsyncGenerator[AsyncZeroconf | None]:
    """Speak mDNS for the length of the block; whatever was announced is withdrawn.

    With `loopback_only` no packet leaves this machine. Otherwise every interface is
    used, the loopback one too, so that processes on one machine find each other; where
    there are too many, those that `multicast` ranks first.
    Yields None where it cannot be spoken, after a warning that says what to use
    `instead`.
    """
    try:
        zeroconf = _opened(loopback_only)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no interface
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
    try:
        return _Everywhere(interfaces=_interfaces(), ip_version=both)
    except RuntimeError:  # one has gone since it was listed
        return _Everywhere(interfaces=_interfaces(), ip_version=both)


class _Everywhere(AsyncZeroconf):
    """On every interface, or the best of them, as they are at each update."""

    async def async_update_interfaces(
        self,
        interfaces: Choice | None = None,
        ip_version: IPVersion | None = None,
        apple_p2p: bool | None = None,
    ) -> None:
        found = _interfaces() if interfaces is None else interfaces
        await super().async_update_interfaces(found, ip_version, apple_p2p)


def _interfaces() -> Choice:
    found = chosen()
    return InterfaceChoice.All if found is None else found
