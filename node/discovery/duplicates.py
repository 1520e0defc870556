"""Duplicate ids: notice another running node with this node's id.

Both see each other; the one with the greater instance takes a new id.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from zeroconf import ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from edgeserve.errors import EdgeserveError
from edgeserve.http.types import Origin
from edgeserve.runtime.background import Started, background, declared
from edgeserve.wire import SERVICE, NodeReport, decode
from node.discovery.client import FleetClient

log = logging.getLogger(__name__)

RESOLVE_SECONDS = 3.0

BROWSE = declared("mdns twins")
ASK = declared("twin", "on-failure")

Report = Callable[[], NodeReport]
OnDuplicate = Callable[[NodeReport], Awaitable[None]]


@asynccontextmanager
async def watching_for_duplicates(
    zeroconf: AsyncZeroconf,
    report: Report,
    on_duplicate: OnDuplicate,
    client: FleetClient,
) -> AsyncGenerator[None]:
    """While the block runs, await `on_duplicate` for each duplicate that answers."""
    async with background() as tasks:
        looking = dict[str, Started]()

        async def look(name: str) -> None:
            info = AsyncServiceInfo(SERVICE, name)
            found = await info.async_request(zeroconf.zeroconf, RESOLVE_SECONDS * 1e3)
            if found and suspicious(info, report()):
                other = await _report_of(info, report().id, client)
                if other is not None and is_duplicate(other, report()):
                    await on_duplicate(other)

        def changed(
            zeroconf: Zeroconf,  # noqa: ARG001 - the browser's signature
            service_type: str,  # noqa: ARG001
            name: str,
            state_change: ServiceStateChange,
        ) -> None:
            if state_change is ServiceStateChange.Removed or not _alike(name, report()):
                return
            if earlier := looking.get(name):
                earlier.cancel()
            looking[name] = tasks.start(ASK, lambda: look(name), name)

        async def browse() -> None:
            browser = AsyncServiceBrowser(
                zeroconf.zeroconf, SERVICE, handlers=[changed]
            )
            try:
                await asyncio.Event().wait()
            finally:
                await browser.async_cancel()

        tasks.start(BROWSE, browse)
        yield


def suspicious(info: AsyncServiceInfo, ours: NodeReport) -> bool:
    """Whether an announcement has this node's id and comes from another process."""
    return (
        info.properties.get(b"id") == ours.id.encode()
        and info.properties.get(b"instance") != ours.instance.encode()
    )


def is_duplicate(other: NodeReport, ours: NodeReport) -> bool:
    """Whether another running process has this node's id."""
    return other.id == ours.id and other.instance != ours.instance


def gives_way(ours: NodeReport, duplicate: NodeReport) -> bool:
    """Whether this node takes a new id; the duplicate decides by the same rule."""
    return ours.instance > duplicate.instance


def _alike(name: str, ours: NodeReport) -> bool:
    return name.removesuffix(f".{SERVICE}").endswith(f" {ours.id[:8]}")


async def _report_of(
    info: AsyncServiceInfo, id_: str, client: FleetClient
) -> NodeReport | None:
    """Ask the announced process for its report: mDNS caches outlive processes.

    In a fleet, one that does not show the certificate of that id is asked nothing.
    """
    known = id_ if client.tokens else ""
    for host in info.parsed_scoped_addresses():
        origin = Origin(host, info.port or 0, id=known)
        try:
            status, body = await client.report(origin)
            if status == 200:
                return decode(body, NodeReport)
        except (EdgeserveError, TimeoutError) as error:
            log.debug("%s does not answer with a node report: %s", origin.url, error)
    return None
