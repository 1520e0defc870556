"""mDNS announcement: let balancers find this node while it runs."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Collection,
)
from contextlib import AsyncExitStack, asynccontextmanager

from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from edgeserve.auth import is_loopback
from edgeserve.config.settings import EVERYWHERE, LOOPBACK, NodeSettings
from edgeserve.http.types import Origin, Upstream
from edgeserve.mdns import multicast
from edgeserve.network import addresses, changes
from edgeserve.runtime.background import background, declared
from edgeserve.wire import PROTOCOL, SERVICE, NodeReport
from node.discovery.duplicates import gives_way, watching_for_duplicates
from node.discovery.registration import Listening, registered
from node.state import NodeState

log = logging.getLogger(__name__)

ANNOUNCE = declared("mdns announcement")

LABEL_BYTES = 63
TXT_NAME_BYTES = 200


class Announcement:
    """What mDNS says of this node."""

    def __init__(
        self,
        zeroconf: AsyncZeroconf,
        report: Callable[[], NodeReport],
        at: Callable[[], frozenset[str]],
        news: AsyncIterable[object],
    ) -> None:
        self._zeroconf = zeroconf
        self._report = report
        self._at = at
        self._news = news
        self._said: AsyncServiceInfo | None = None

    async def say(self) -> None:
        """Announce what is true now, thrice in half a second.

        A node with a new id is announced anew. The old id goes without a goodbye, which
        would withdraw the twin that keeps it.
        """
        said, info = self._said, described(self._report(), self._at())
        self._said = info
        if said is not None and said.name == info.name:
            await (await self._zeroconf.async_update_service(info))
            return
        if said is not None:
            self._zeroconf.zeroconf.registry.async_remove(said)
        # The name holds an id, so nobody need be asked whether it is free.
        announcing = self._zeroconf.async_register_service(
            info, cooperating_responders=True
        )
        await (await announcing)

    async def follow(self) -> None:
        """Announce, again whenever this machine's addresses change. Never ends."""
        await self.say()
        async for _ in self._news:
            await self.say()
            await self._zeroconf.async_update_interfaces()


class _Moves:
    """Changes of this machine's addresses, from those at the start of an iteration."""

    def __aiter__(self) -> AsyncIterator[object]:
        return changes(addresses())


def described(report: NodeReport, at: Collection[str]) -> AsyncServiceInfo:
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
    news: AsyncIterable[object] | None = None,
) -> AsyncGenerator[Announcement]:
    """Announce `report()` at the addresses `at()` for the length of the block.

    `news` yields when they have changed; by default this machine's are watched.
    Closing `zeroconf` afterwards says goodbye.
    """
    announcement = Announcement(zeroconf, report, at, news or _Moves())
    async with background() as tasks:
        tasks.start(ANNOUNCE, announcement.follow)
        yield announcement


EVERY_IPV4 = "0.0.0.0"  # noqa: S104 - compared with, not bound to


@asynccontextmanager
async def be_discoverable(
    state: NodeState,
    settings: NodeSettings,
    listening: Origin,
    upstream: Upstream,
    token: str | None,
) -> AsyncGenerator[None]:
    """Be found at `listening` for the length of the block, and say goodbye after it."""
    loopback_only = is_loopback(listening.host)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            registered(
                settings.balancers,
                Listening(
                    origin=listening,
                    announced=settings.announce_url,
                    id=lambda: state.report().id,
                ),
                upstream,
                token,
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

            async def met(twin: NodeReport) -> None:
                if gives_way(state.report(), twin):
                    state.identity.renew()
                    state.feed.report_changed()
                    log.warning("%s has our id; ours is new now", twin.name)
                await announcement.say()

            await stack.enter_async_context(
                watching_for_duplicates(zeroconf, state.report, met, upstream, token)
            )
        yield


def reachable_at(host: str) -> frozenset[str]:
    """Return the addresses that reach a node listening on `host`, an address itself."""
    if host not in {EVERYWHERE, EVERY_IPV4}:
        return frozenset({host})
    found = addresses()
    if host == EVERY_IPV4:
        found = frozenset(each for each in found if _is_ipv4(each))
    return found or frozenset({LOOPBACK})


def _is_ipv4(address: str) -> bool:
    return ipaddress.ip_address(address).version == 4
