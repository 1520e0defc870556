"""Proved connections: closes those whose fleet token has ended since their proof."""

from __future__ import annotations

import asyncio

from edgeserve.runtime.clock import Ticker
from edgeserve.security.proof import FleetKey
from edgeserve.security.tokens import FleetTokens

SWEEP_SECONDS = 1.0
"""How long a connection may outlive its token."""


class ProvedConnections:
    """The open connections of one port or pool, each with the token that it proved."""

    def __init__(self, tokens: FleetTokens) -> None:
        self._tokens = tokens
        self._keys: dict[asyncio.Transport, FleetKey] = {}
        self._ticker = Ticker(SWEEP_SECONDS)

    def add(self, transport: asyncio.Transport, key: FleetKey) -> None:
        """Close the connection once `key` is not valid any longer."""
        self._keys[transport] = key
        self._ticker.add(self)

    def tick(self, now: float) -> None:  # noqa: ARG002 - the ticker's signature
        """Close what has lost its token; forget what is closed."""
        valid = self._tokens.keys()
        for transport, key in tuple(self._keys.items()):
            if key not in valid:
                transport.abort()
            if transport.is_closing():
                del self._keys[transport]
        if not self._keys:
            self._ticker.discard(self)
