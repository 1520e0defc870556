"""Sources: a list of nodes, names in DNS, and multicast, as the settings say."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from balancer.discovery.dns import LOOK_UP, NodeNames, node_name
from balancer.discovery.hints import Discovered, OnEvent
from balancer.discovery.mdns import BROWSE, Browser
from edgeserve.config.settings import BalancerSettings, NodeSettings
from edgeserve.http.types import origin_set
from edgeserve.runtime.background import Tasks, background


@asynccontextmanager
async def discovering(
    settings: BalancerSettings, on_event: OnEvent, *, loopback_only: bool
) -> AsyncGenerator[None]:
    """Call `on_event` for each node discovered while the block runs, in the event loop.

    Listed nodes are discovered at once. `loopback_only`: mDNS stays on this machine.
    Where mDNS is not available, a warning says so and listed nodes remain.
    """
    async with background() as tasks:
        for url in settings.nodes:
            _take(url, on_event, tasks)
        if not settings.discover:
            yield
            return
        from edgeserve.mdns import multicast

        instead = "list nodes with --node URL"
        async with (
            multicast(loopback_only=loopback_only, instead=instead) as zeroconf,
            background() as browsing,
        ):
            if zeroconf is not None:
                browsing.start(BROWSE, Browser(zeroconf, on_event, browsing).follow)
            yield


def _take(url: str, on_event: OnEvent, tasks: Tasks) -> None:
    """Note one listed node, or look a name up. Raises SettingsError."""
    if name := node_name(url):
        tasks.start(LOOK_UP, NodeNames(name, on_event).follow, url)
        return
    origin = origin_set(url, NodeSettings.port, "--node")
    on_event(Discovered(url, (origin,), None, "static"))
