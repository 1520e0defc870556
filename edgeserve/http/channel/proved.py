"""Proved connections: closes those that may not go on since their proof.

The fleet token that they proved has ended, or the node's id has been revoked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container

from edgeserve.runtime.clock import Ticker
from edgeserve.security.proof import FleetKey
from edgeserve.security.tokens import FleetTokens

SWEEP_SECONDS = 1.0
"""How long a connection may outlive its token."""

Revoked = Callable[[], Container[str]]
"""Returns the ids of the nodes that are kept out now."""


def none_revoked() -> Container[str]:
    """Keep no node out."""
    return ()


class ProvedConnections:
    """The open connections of one port or pool, each with token and id it proved."""

    def __init__(self, tokens: FleetTokens, revoked: Revoked = none_revoked) -> None:
        self._tokens, self._revoked = tokens, revoked
        self._open: dict[asyncio.Transport, tuple[FleetKey, str]] = {}
        self._ticker = Ticker(SWEEP_SECONDS)

    def add(self, transport: asyncio.Transport, key: FleetKey, id_: str = "") -> None:
        """Close the connection once `key` or `id_` is not valid any longer."""
        self._open[transport] = key, id_
        self._ticker.add(self)

    def tick(self, now: float) -> None:  # noqa: ARG002 - the ticker's signature
        """Close what may not go on; forget what is closed."""
        valid, revoked = self._tokens.keys(), self._revoked()
        for transport, (key, id_) in tuple(self._open.items()):
            if key not in valid or id_ in revoked:
                transport.abort()
            if transport.is_closing():
                del self._open[transport]
        if not self._open:
            self._ticker.discard(self)
