"""Server knowledge: what answers have shown of each engine of a server. Pure.

It outlives the engines and restarts of the balancer, as learned speeds do.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from balancer.fleet.engines import EngineKey
from balancer.prediction.servers.width import MOST, LearnedWidth

MOST_ENGINES = 4096


class Known(msgspec.Struct):
    """What was learned of one engine.

    `context` is what it named when it refused a prompt; `too_long` is the length of the
    shortest prompt that it refused, as we estimated it. 0: unknown.
    """

    width: LearnedWidth | None = None
    context: int = 0
    too_long: int = 0


NOTHING = Known()


class ServerKnowledge:
    """What was learned of all engines of servers."""

    def __init__(self) -> None:
        self._known: dict[str, Known] = {}

    def of(self, key: EngineKey) -> Known:
        """Return what is known, to be read."""
        return self._known.get(" ".join(key), NOTHING)

    def of_server(self, node_id: str) -> Mapping[str, Known]:
        """Return what is known of the engines of a server, by their ids."""
        start = f"{node_id} "
        return {
            name.removeprefix(start): each
            for name, each in self._known.items()
            if name.startswith(start)
        }

    def width(self, key: EngineKey, assumed: int, most: int) -> LearnedWidth:
        """Return the width of an engine, which may change."""
        known = self._own(key)
        if known.width is None:
            known.width = LearnedWidth(assumed)
        known.width.most = most
        known.width.width = min(known.width.width, most)
        return known.width

    def refused(self, key: EngineKey, tokens: int, context: int) -> None:
        """Note that a prompt was too long; `context` is 0 where it was not named."""
        known = self._own(key)
        known.context = context or known.context
        known.too_long = min(tokens, known.too_long or tokens)

    def answered(self, key: EngineKey, tokens: int) -> None:
        """Note that a prompt was not too long."""
        known = self.of(key)
        if 0 < known.too_long <= tokens:
            known.too_long = tokens + 1

    def _own(self, key: EngineKey) -> Known:
        name = " ".join(key)
        if name not in self._known and len(self._known) >= MOST_ENGINES:
            self._known.pop(next(iter(self._known)))
        return self._known.setdefault(name, Known())

    def dump(self) -> Mapping[str, Known]:
        """Return what to keep over a restart."""
        return self._known

    def load(self, known: Mapping[str, Known]) -> None:
        """Continue from what was kept."""
        self._known = {
            name: each
            for name, each in known.items()
            if each.width is None or 0 < each.width.width <= MOST
        }
