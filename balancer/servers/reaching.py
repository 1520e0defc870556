"""Reaching machines: the connections to nodes, and to servers that are no nodes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from balancer.discovery.events import ReconnectPolicy
from balancer.discovery.node_client import NodeClient
from balancer.fleet.current import LiveFleet
from balancer.servers.adopted import adopting
from balancer.servers.polling import Beside
from balancer.servers.registry import ServerRegistry, serving_servers
from edgeserve import http
from edgeserve.config.settings import BalancerSettings
from edgeserve.http.channel.opening import FleetChannel


@asynccontextmanager
async def reaching(
    settings: BalancerSettings,
    current: LiveFleet,
    pace: ReconnectPolicy,
    channel: FleetChannel | None,
    beside: Beside,
) -> AsyncGenerator[tuple[NodeClient, ServerRegistry]]:
    """Hold connections to nodes, each proved on a channel, and to other servers."""
    async with (
        http.upstream(connect_seconds=settings.connect_seconds, channel=channel) as to,
        serving_servers(settings, current, pace, beside) as servers,
    ):
        with adopting(current, servers, to):
            yield NodeClient(to, servers.client), servers
