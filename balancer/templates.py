"""Which variants can continue a message: asked once each, when first it matters."""

from __future__ import annotations

import asyncio

import msgspec

from balancer.candidates import Candidate
from balancer.resume.template import continues, probes
from edgeserve.errors import NodeLost
from edgeserve.openai import Dialect
from edgeserve.relay.upstream import Upstream
from edgeserve.wire import VARIANT_HEADER

SECONDS = 1.0
"""Longest wait for an engine's answer; without one the template is trusted."""

TEMPLATED: frozenset[Dialect] = frozenset(("chat", "responses", "messages"))


class _Applied(msgspec.Struct):
    prompt: str


class Templates:
    """Remembers what was found, by variant."""

    def __init__(self, upstream: Upstream, token: str | None) -> None:
        self._upstream = upstream
        self._headers = {"content-type": "application/json"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        self._refuses: dict[str, bool] = {}

    async def refuses(self, to: Candidate, dialect: Dialect) -> bool:
        """Whether that engine's template breaks a message that it is to continue."""
        if dialect not in TEMPLATED:
            return False
        variant = to.engine.variant
        if variant not in self._refuses:
            try:
                async with asyncio.timeout(SECONDS):
                    asked, continued = [await self._applied(to, b) for b in probes()]
            except (TimeoutError, NodeLost, msgspec.DecodeError):
                return False
            self._refuses[variant] = not continues(asked, continued)
        return self._refuses[variant]

    async def _applied(self, to: Candidate, body: bytes) -> str:
        headers = {**self._headers, VARIANT_HEADER: to.engine.id}
        async with self._upstream.ask(
            to.origin, "POST", "/apply-template", headers, body
        ) as answer:
            return msgspec.json.decode(await answer.read(), type=_Applied).prompt
