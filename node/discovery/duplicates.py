"""Duplicate ids: notice another live node with our id.

Both see each other; the one whose instance is greater takes a new id.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from zeroconf import ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from edgeserve.auth import bearer
from edgeserve.errors import EdgeserveError
from edgeserve.http.types import Origin, Upstream
from edgeserve.runtime.background import Started, background, declared
from edgeserve.wire import SERVICE, NodeReport, decode

log = logging.getLogger(__name__)

RESOLVE_SECONDS = 3.0
ASK_SECONDS = 5.0

TWINS = declared("mdns twins")
TWIN = declared("twin", "on-failure")

Report = Callable[[], NodeReport]
Met = Callable[[NodeReport], Awaitable[None]]


@asynccontextmanager
async def watching_for_duplicates(
    zeroconf: AsyncZeroconf,
    report: Report,
    met: Met,
    upstream: Upstream,
    token: str | None,
) -> AsyncGenerator[None]:
    """While the block runs, await `met` for each twin that is announced and answers."""
    async with background() as tasks:
        looking = dict[str, Started]()

        async def look(name: str) -> None:
            info = AsyncServiceInfo(SERVICE, name)
            found = await info.async_request(zeroconf.zeroconf, RESOLVE_SECONDS * 1e3)
            if found and suspicious(info, report()):
                twin = await _ask(info, upstream, token)
                if twin is not None and is_duplicate(twin, report()):
                    await met(twin)

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
            looking[name] = tasks.start(TWIN, lambda: look(name), name)

        async def browse() -> None:
            browser = AsyncServiceBrowser(
                zeroconf.zeroconf, SERVICE, handlers=[changed]
            )
            try:
                await asyncio.Event().wait()
            finally:
                await browser.async_cancel()

        tasks.start(TWINS, browse)
        yield


def suspicious(info: AsyncServiceInfo, ours: NodeReport) -> bool:
    """Whether an announcement has our id, but comes from another process."""
    return (
        info.properties.get(b"id") == ours.id.encode()
        and info.properties.get(b"instance") != ours.instance.encode()
    )


def is_duplicate(other: NodeReport, ours: NodeReport) -> bool:
    """Whether another live process goes by our id."""
    return other.id == ours.id and other.instance != ours.instance


def gives_way(ours: NodeReport, twin: NodeReport) -> bool:
    """Whether it is us who take a new id; the twin decides the same way."""
    return ours.instance > twin.instance


def _alike(name: str, ours: NodeReport) -> bool:
    return name.removesuffix(f".{SERVICE}").endswith(f" {ours.id[:8]}")


async def _ask(
    info: AsyncServiceInfo, upstream: Upstream, token: str | None
) -> NodeReport | None:
    """Return what the announced process says of itself: caches outlive processes."""
    for host in info.parsed_scoped_addresses():
        origin = Origin(host, info.port or 0)
        try:
            async with (
                asyncio.timeout(ASK_SECONDS),
                upstream.ask(
                    origin, "GET", "/edgeserve/v1/node", bearer(token)
                ) as answer,
            ):
                if answer.status == 200:
                    return decode(await answer.read(), NodeReport)
        except (EdgeserveError, TimeoutError) as error:
            log.debug("%s did not say who it is: %s", origin.url, error)
    return None
