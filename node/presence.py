"""Let balancers find this node while a block runs: by mDNS, and by registering."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from edgeserve.auth import is_loopback
from edgeserve.config import EVERYWHERE, LOOPBACK, NodeSettings
from edgeserve.interfaces import addresses
from edgeserve.mdns import multicast
from edgeserve.relay.upstream import Origin, Upstream
from edgeserve.wire import NodeReport
from node.advertise import announced
from node.register import Listening, registered
from node.state import NodeState
from node.twins import gives_way, watching_for_twins

log = logging.getLogger(__name__)

EVERY_IPV4 = "0.0.0.0"  # noqa: S104 - compared with, not bound to


@asynccontextmanager
async def present(
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
                watching_for_twins(zeroconf, state.report, met, upstream, token)
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
