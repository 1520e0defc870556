"""Fleet client: this node's own requests to balancers and to other nodes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from edgeserve.http.client.pool import Pool
from edgeserve.http.types import Origin, Upstream
from edgeserve.security.tokens import FleetTokens

ASK_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class FleetClient:
    """Sends small requests with a time limit.

    `nodes` sends nothing before both sides have proved that they hold the fleet token;
    to `balancers` go registrations, which are no secret, with a proof by `tokens`.
    """

    balancers: Upstream
    nodes: Pool
    tokens: FleetTokens

    async def report(self, origin: Origin) -> tuple[int, bytes]:
        """Ask a node for its report; see `_ask`."""
        return await _ask(self.nodes, origin, "GET", "/edgeserve/v1/node")

    async def ask(
        self, balancer: Origin, method: str, path: str, body: bytes = b""
    ) -> tuple[int, bytes]:
        """Send a balancer a request; see `_ask`."""
        return await _ask(self.balancers, balancer, method, path, body)


async def _ask(
    upstream: Upstream, origin: Origin, method: str, path: str, body: bytes = b""
) -> tuple[int, bytes]:
    """Return status and body. Raises TimeoutError, OSError or EdgeserveError."""
    headers = {"content-type": "application/json"} if body else {}
    async with (
        asyncio.timeout(ASK_SECONDS),
        upstream.ask(origin, method, path, headers, body) as answer,
    ):
        return answer.status, await answer.read()
