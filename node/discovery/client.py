"""Fleet client: this node's own requests to balancers and to other nodes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from edgeserve.http.types import Origin, Upstream
from edgeserve.security.tokens import bearer

ASK_SECONDS = 5.0


@dataclass(frozen=True)
class FleetClient:
    """Sends requests with the fleet token, if there is one."""

    upstream: Upstream
    token: str | None = None

    async def ask(
        self, origin: Origin, method: str, path: str, body: bytes = b""
    ) -> tuple[int, bytes]:
        """Return status and body. Raises TimeoutError, OSError or EdgeserveError."""
        headers = bearer(self.token)
        if body:
            headers["content-type"] = "application/json"
        async with (
            asyncio.timeout(ASK_SECONDS),
            self.upstream.ask(origin, method, path, headers, body) as answer,
        ):
            return answer.status, await answer.read()
