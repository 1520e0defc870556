"""mDNS discovery: where nodes may be, by multicast."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from balancer.discovery.hints import Discovered, OnEvent, Withdrawn, ordered
from edgeserve.http.types import Origin
from edgeserve.network import addresses, changes, interfaces
from edgeserve.runtime.background import Started, Tasks, declared
from edgeserve.wire import SERVICE

if TYPE_CHECKING:  # zeroconf is slow to import, and `--no-discover` does without
    from zeroconf import ServiceStateChange, Zeroconf
    from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

log = logging.getLogger(__name__)

RESOLVE_SECONDS = 3.0
ATTEMPTS = 5
LINGER_SECONDS = 1.5
"""A withdrawn address stays in caches for a second (RFC 6762, 10.2)."""

BROWSE = declared("mdns browser")
RESOLVE = declared("mdns resolve", "on-failure")


class Browser:
    """Turns announcements of the mDNS browser into events."""

    def __init__(
        self, zeroconf: AsyncZeroconf, on_event: OnEvent, tasks: Tasks
    ) -> None:
        self._zeroconf = zeroconf
        self._on_event = on_event
        self._tasks = tasks
        self._resolving: dict[str, Started] = {}

    async def follow(self) -> None:
        """Browse; ask anew on every interface when this machine's addresses change."""
        from zeroconf.asyncio import AsyncServiceBrowser

        address_changes = changes(addresses())
        while True:
            browser = AsyncServiceBrowser(
                self._zeroconf.zeroconf, SERVICE, handlers=[self._changed]
            )
            try:
                await anext(address_changes)
            finally:
                await browser.async_cancel()
            await self._zeroconf.async_update_interfaces()

    def _changed(
        self,
        zeroconf: Zeroconf,  # noqa: ARG002 - the browser's signature
        service_type: str,  # noqa: ARG002
        name: str,
        state_change: ServiceStateChange,
    ) -> None:
        if earlier := self._resolving.pop(name, None):
            earlier.cancel()
        if state_change.name == "Removed":
            self._on_event(Withdrawn(name))
            return
        self._resolving[name] = self._tasks.start(
            RESOLVE, lambda: self._resolve(name), name
        )

    async def _resolve(self, name: str) -> None:
        """Look the instance up, and once more when replaced addresses have expired."""
        first = await self._look_up(name)
        if first is None:
            log.info("%s was announced, but its address was not", name)
            return
        self._on_event(first)
        await asyncio.sleep(LINGER_SECONDS)
        again = await self._look_up(name)
        if again is not None and again != first:
            self._on_event(again)

    async def _look_up(self, name: str) -> Discovered | None:
        from zeroconf.asyncio import AsyncServiceInfo

        for _ in range(ATTEMPTS):
            info = AsyncServiceInfo(SERVICE, name)
            if await info.async_request(self._zeroconf.zeroconf, RESOLVE_SECONDS * 1e3):
                return _discovered(name, info)
        return None


def _discovered(name: str, info: AsyncServiceInfo) -> Discovered:
    own = interfaces() | interfaces(loopback=True)
    hosts = ordered(info.parsed_scoped_addresses(), own)
    id_ = info.properties.get(b"id") or b""
    origins = tuple(Origin(host, info.port or 0) for host in hosts)
    return Discovered(name, origins, id_.decode("ascii", "replace") or None, "mdns")
