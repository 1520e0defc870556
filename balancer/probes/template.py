"""Template probes: find out whether a chat template can continue a message.

Of the 70 templates that come with llama.cpp (0c1e570) none refused and none trimmed the
text. 23 put it right behind the generation prompt. Most others, of models that reason,
put it behind an empty block of reasoning as well, which their models know. One breaks
it: Phi-3.5 writes its end-of-text token where no generation prompt is asked for. That
begins like the prompt, so that llama.cpp cuts the prompt in two.
"""

from __future__ import annotations

import asyncio
import json
from os.path import commonprefix

import msgspec

from balancer.dialects.base import Dialect
from balancer.discovery.node_client import NodeClient
from balancer.fleet.engines import EngineCandidate
from edgeserve.errors import NodeLost

TEXT = "Some text"
_ASKED = [{"role": "user", "content": "Hi"}]
_CONTINUED = [*_ASKED, {"role": "assistant", "content": TEXT}]


def probes() -> tuple[bytes, bytes]:
    """Return two bodies for `/apply-template`: a question, and it with an answer begun.

    Nothing is generated; once per variant is enough.
    """
    asked, continued = ({"messages": each} for each in (_ASKED, _CONTINUED))
    return json.dumps(asked).encode(), json.dumps(continued).encode()


def continues(asked: str, continued: str) -> bool:
    """Whether the second prompt leads on from the first; both are from the answers.

    It may add to the generation prompt, or replace its end, but not break it and put
    something between its halves.
    """
    if not continued.endswith(TEXT):
        return False
    lead = continued.removesuffix(TEXT)
    at = len(commonprefix((asked, lead)))  # noqa: RUF071 - texts, not paths
    rest, instead = asked[at:], lead[at:]
    if not rest.strip() or not instead.endswith(rest):
        return True
    # `<think>` may become `</think>`.
    return instead.removesuffix(rest) == "/"


SECONDS = 1.0
"""Longest wait for an engine's answer; without one the template is trusted."""


class _Applied(msgspec.Struct):
    prompt: str


class TemplateProbe:
    """Probes templates, once for each variant."""

    def __init__(self, nodes: NodeClient) -> None:
        self._nodes = nodes
        self._refuses: dict[str, bool] = {}

    def known(self, to: EngineCandidate, dialect: type[Dialect]) -> bool | None:
        """What `refuses` would say; None where it would have to ask."""
        if not dialect.templated:
            return False
        return self._refuses.get(to.engine.variant)

    async def refuses(self, to: EngineCandidate, dialect: type[Dialect]) -> bool:
        """Whether that engine's template breaks a message to be continued."""
        if not dialect.templated:
            return False
        variant = to.engine.variant
        if variant not in self._refuses:
            try:
                async with asyncio.timeout(SECONDS):
                    asked, continued = [await self._apply(to, b) for b in probes()]
            except (TimeoutError, NodeLost, msgspec.DecodeError):
                return False
            self._refuses[variant] = not continues(asked, continued)
        return self._refuses[variant]

    async def _apply(self, to: EngineCandidate, body: bytes) -> str:
        async with self._nodes.probe(to, "/apply-template", body) as answer:
            return msgspec.json.decode(await answer.read(), type=_Applied).prompt
