"""mDNS discovery: where nodes may be, by multicast or by a static list.

Both events are hints: the follower tries the addresses of a discovered node, and a node
that answers stays when its announcement goes.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import AsyncGenerator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgeserve.config.settings import BalancerSettings, NodeSettings
from edgeserve.http.types import Origin, origin_set
from edgeserve.network import Address, Interface, addresses, changes, interfaces
from edgeserve.runtime.background import Started, Tasks, background, declared
from edgeserve.wire import SERVICE

if TYPE_CHECKING:  # zeroconf is slow to import, and `--no-discover` does without
    from zeroconf import ServiceStateChange, Zeroconf
    from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

log = logging.getLogger(__name__)


def ordered(announced: Iterable[str], own: Collection[Interface]) -> tuple[str, ...]:
    """Sort addresses: loopback, IPv4 nearby, other IPv4, IPv6, IPv6 link-local.

    `own`: this machine's addresses. Equal ranks keep their order. Addresses that cannot
    be connected to are dropped.
    """
    usable = [each for each in map(ipaddress.ip_address, announced) if _usable(each)]
    own_ips = {each.ip for each in own}
    elsewhere = any(_plain(each) not in own_ips for each in usable)
    ranked = sorted(
        usable, key=lambda each: _rank(each, own_ips if elsewhere else (), own)
    )
    return tuple(str(each) for each in ranked)


def _usable(address: Address) -> bool:
    if address.is_unspecified or address.is_multicast:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.is_link_local:
        return address.scope_id is not None
    return True


def _plain(address: Address) -> Address:
    return ipaddress.ip_address(str(address).partition("%")[0])


def _rank(
    address: Address, ours: Collection[Address], own: Collection[Interface]
) -> int:
    # Docker gives every machine the same bridge address: a node elsewhere that
    # announces one of ours means its own bridge, and we would reach ourselves.
    if _plain(address) in ours:
        return 9
    if address.is_loopback:
        return 0
    if isinstance(address, ipaddress.IPv4Address):
        return 1 if any(address in each.network for each in own) else 2
    return 4 if address.is_link_local else 3


Source = Literal["mdns", "static", "registered"]

RESOLVE_SECONDS = 3.0
ATTEMPTS = 5
LINGER_SECONDS = 1.5
"""A withdrawn address stays in caches for a second (RFC 6762, 10.2)."""

BROWSE = declared("mdns browser")
RESOLVE = declared("mdns resolve", "on-failure")


@dataclass(frozen=True)
class Discovered:
    """A node was discovered, again, or at another address.

    `key` names the source: the mDNS instance or the URL; a later event with the same
    key replaces the earlier one. `origins` are tried in order. `id`: the node's own id,
    where the announcement has it.
    """

    key: str
    origins: tuple[Origin, ...]
    id: str | None
    source: Source


@dataclass(frozen=True)
class Withdrawn:
    """The node discovered as `key` has withdrawn, or its announcement has expired."""

    key: str


OnEvent = Callable[[Discovered | Withdrawn], None]


@asynccontextmanager
async def discovering(
    settings: BalancerSettings, on_event: OnEvent, *, loopback_only: bool
) -> AsyncGenerator[None]:
    """Call `on_event` for each node discovered while the block runs, in the event loop.

    Listed nodes are discovered at once. `loopback_only`: mDNS stays on this machine.
    Where mDNS is not available, a warning says so and listed nodes remain.
    """
    for url in settings.nodes:
        origin = origin_set(url, NodeSettings.port, "--node")
        on_event(Discovered(url, (origin,), None, "static"))
    if not settings.discover:
        yield
        return
    from edgeserve.mdns import multicast

    instead = "list nodes with --node URL"
    async with (
        multicast(loopback_only=loopback_only, instead=instead) as zeroconf,
        background() as tasks,
    ):
        if zeroconf is not None:
            tasks.start(BROWSE, _Browser(zeroconf, on_event, tasks).follow)
        yield


class _Browser:
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
