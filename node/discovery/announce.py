"""mDNS announcement: let balancers find this node while it runs."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Collection,
)
from contextlib import AsyncExitStack, asynccontextmanager

from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from edgeserve.config.settings import EVERYWHERE, LOOPBACK, NodeSettings
from edgeserve.http.types import Origin
from edgeserve.mdns import multicast
from edgeserve.network import EVERY_IPV4, addresses, changes
from edgeserve.runtime.background import background, declared
from edgeserve.security.tokens import is_loopback
from edgeserve.wire import PROTOCOL, SERVICE, NodeReport
from node.discovery.client import FleetClient
from node.discovery.duplicates import gives_way, watching_for_duplicates
from node.discovery.registration import ListenAddress, registered
from node.state import NodeState

log = logging.getLogger(__name__)

ANNOUNCE = declared("mdns announcement")

LABEL_BYTES = 63
TXT_NAME_BYTES = 200


class Announcement:
    """This node's mDNS records."""

    def __init__(
        self,
        zeroconf: AsyncZeroconf,
        report: Callable[[], NodeReport],
        at: Callable[[], frozenset[str]],
        changes: AsyncIterable[object],
    ) -> None:
        self._zeroconf = zeroconf
        self._report = report
        self._at = at
        self._changes = changes
        self._announced: AsyncServiceInfo | None = None

    async def announce(self) -> None:
        """Announce the current records, three times in half a second.

        A new id is announced as a new service. The old id gets no goodbye, which would
        also withdraw the duplicate that keeps it.
        """
        before, info = self._announced, service_info(self._report(), self._at())
        self._announced = info
        if before is not None and before.name == info.name:
            await (await self._zeroconf.async_update_service(info))
            return
        if before is not None:
            self._zeroconf.zeroconf.registry.async_remove(before)
        # The name holds an id, so no other node has it: no probe is needed.
        announcing = self._zeroconf.async_register_service(
            info, cooperating_responders=True
        )
        await (await announcing)

    async def follow(self) -> None:
        """Announce now and at each change of this machine's addresses. Never ends."""
        await self.announce()
        async for _ in self._changes:
            await self.announce()
            await self._zeroconf.async_update_interfaces()


def service_info(report: NodeReport, at: Collection[str]) -> AsyncServiceInfo:
    """Turn a report into DNS records. Pure."""
    return AsyncServiceInfo(
        SERVICE,
        f"{label(report.name, report.id)}.{SERVICE}",
        port=report.port,
        server=f"edgeserve-{report.id[:12]}.local.",
        parsed_addresses=sorted(each.partition("%")[0] for each in at),
        properties={
            "id": report.id,
            "instance": report.instance,
            "name": _cut(report.name, TXT_NAME_BYTES),
            "port": str(report.port),
            "protocol": str(PROTOCOL),
        },
    )


def label(name: str, id_: str) -> str:
    """Return the instance label: `kitchen 1f0c9a3e`. One label has no dots."""
    ending = f" {id_[:8]}"
    plain = "".join(char if char.isprintable() else " " for char in name)
    return _cut(plain.replace(".", "-"), LABEL_BYTES - len(ending)) + ending


def _cut(text: str, size: int) -> str:
    """Shorten to so many bytes of UTF-8, by whole characters."""
    return text.encode()[:size].decode(errors="ignore")


@asynccontextmanager
async def announced(
    zeroconf: AsyncZeroconf,
    report: Callable[[], NodeReport],
    at: Callable[[], frozenset[str]],
    changed: AsyncIterable[object] | None = None,
) -> AsyncGenerator[Announcement]:
    """Announce `report()` at the addresses `at()` for the length of the block.

    `changed` yields when the addresses have changed; by default this machine's own are
    watched. Closing `zeroconf` afterwards sends the goodbye.
    """
    news = changed or changes(addresses())
    announcement = Announcement(zeroconf, report, at, news)
    async with background() as tasks:
        tasks.start(ANNOUNCE, announcement.follow)
        yield announcement


@asynccontextmanager
async def be_discoverable(
    state: NodeState,
    settings: NodeSettings,
    listening: Origin,
    client: FleetClient,
) -> AsyncGenerator[None]:
    """Be found at `listening` for the length of the block; withdraw at its end."""
    loopback_only = is_loopback(listening.host)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            registered(
                settings.balancers,
                ListenAddress(
                    origin=listening,
                    announced=settings.announce_url,
                    id=lambda: state.report().id,
                ),
                client,
            )
        )
        if settings.advertise:
            zeroconf = await stack.enter_async_context(
                multicast(
                    loopback_only=loopback_only,
                    instead="name a balancer with --balancer URL",
                )
            )
        else:
            zeroconf = None
        if zeroconf is not None:
            announcement = await stack.enter_async_context(
                announced(zeroconf, state.report, lambda: reachable_at(listening.host))
            )

            async def on_duplicate(duplicate: NodeReport) -> None:
                if gives_way(state.report(), duplicate):
                    state.identity.renew()
                    state.feed.report_changed()
                    log.warning(
                        "%s has the same id; this node has a new one", duplicate.name
                    )
                await announcement.announce()

            await stack.enter_async_context(
                watching_for_duplicates(zeroconf, state.report, on_duplicate, client)
            )
        yield


def reachable_at(host: str) -> frozenset[str]:
    """Return the addresses that reach a node which listens on the address `host`."""
    if host not in {EVERYWHERE, EVERY_IPV4}:
        return frozenset({host})
    found = addresses()
    if host == EVERY_IPV4:
        found = frozenset(each for each in found if _is_ipv4(each))
    return found or frozenset({LOOPBACK})


def _is_ipv4(address: str) -> bool:
    return ipaddress.ip_address(address).version == 4
