"""Baseline policies: round robin, least connections and other known ones."""

from __future__ import annotations

import random
from collections.abc import Sequence
from zlib import crc32

from balancer.simulate.engine import Event
from balancer.simulate.fleets import Machine
from balancer.simulate.world import Act, Start
from balancer.telemetry.trace import Call


class Classic:
    """The common part: counts the open requests of each engine."""

    def __init__(self, fleet: Sequence[Machine], seed: int = 1) -> None:
        self.fleet = fleet
        self.open = [0] * len(fleet)
        self.chance = random.Random(seed)  # noqa: S311 - a simulation

    def arrive(self, call: Call, now: float) -> Sequence[Act]:
        """Pick an engine at once."""
        able = [i for i, each in enumerate(self.fleet) if each.serves(call.model)]
        engine = self.pick(call, able, now)
        self.open[engine] += 1
        return (Start(call, engine),)

    def notice(self, event: Event, engine: int, now: float) -> Sequence[Act]:  # noqa: ARG002
        """Count requests that end."""
        if event.kind == "end":
            self.open[engine] -= 1
        return ()

    def pick(self, call: Call, able: list[int], now: float) -> int:
        """Choose one of the engines that serve the model."""
        raise NotImplementedError


class RoundRobin(Classic):
    """One engine after the other."""

    turn = -1

    def pick(self, call: Call, able: list[int], now: float) -> int:  # noqa: ARG002
        """Pick the next engine."""
        self.turn += 1
        return able[self.turn % len(able)]


class LeastConnections(Classic):
    """Fewest open requests; at random among equals, as Caddy does."""

    def pick(self, call: Call, able: list[int], now: float) -> int:  # noqa: ARG002
        """Pick the least loaded engine."""
        return min(able, key=lambda i: (self.open[i], self.chance.random()))


class LeastConnectionsBySlots(Classic):
    """Fewest open requests per slot: nginx and HAProxy with good weights."""

    def pick(self, call: Call, able: list[int], now: float) -> int:  # noqa: ARG002
        """Pick the engine with the least load per slot."""
        return min(
            able,
            key=lambda i: (
                (self.open[i] + 1) / self.fleet[i].slots,
                self.chance.random(),
            ),
        )


class TwoChoices(Classic):
    """The better of two engines that are drawn at random."""

    def pick(self, call: Call, able: list[int], now: float) -> int:  # noqa: ARG002
        """Pick the less loaded of the two."""
        drawn = self.chance.sample(able, min(2, len(able)))
        return min(drawn, key=lambda i: self.open[i])


class SessionHash(Classic):
    """Each conversation always goes to the same engine."""

    def pick(self, call: Call, able: list[int], now: float) -> int:  # noqa: ARG002
        """Pick by rendezvous hashing."""
        return max(able, key=lambda i: crc32(f"{call.session}/{i}".encode()))


class CacheAware(Classic):
    """SGLang's router: the longest known prefix, unless the load is unbalanced.

    As in `policies/cache_aware.rs`: unbalanced when most - least > `absolute` and most
    > `relative`·least, then the shortest queue; else the engine of the longest match if
    it is more than `threshold` of the prompt, else the one with least text.
    """

    def __init__(
        self,
        fleet: Sequence[Machine],
        seed: int = 1,
        absolute: int = 64,
        relative: float = 1.5,
        threshold: float = 0.3,
    ) -> None:
        super().__init__(fleet, seed)
        self.absolute, self.relative, self.threshold = absolute, relative, threshold
        self.tree: dict[bytes, int] = {}
        self.text = [0] * len(fleet)

    def pick(self, call: Call, able: list[int], now: float) -> int:  # noqa: ARG002
        """Pick as above; the prompt then counts as known there."""
        engine = self._choose(call, able)
        before = 0
        for block, end in zip(call.prompt.blocks, call.prompt.ends, strict=True):
            if self.tree.get(block) != engine:
                self.tree[block] = engine
                self.text[engine] += end - before
            before = end
        return engine

    def _choose(self, call: Call, able: list[int]) -> int:
        most, least = max(self.open[i] for i in able), min(self.open[i] for i in able)
        if most - least > self.absolute and most > self.relative * least:
            return min(able, key=lambda i: self.open[i])
        known, engine = 0, -1
        for block, end in zip(call.prompt.blocks, call.prompt.ends, strict=True):
            if block not in self.tree:
                break
            known, engine = end, self.tree[block]
        if known > self.threshold * call.prompt.size and engine in able:
            return engine
        return min(able, key=lambda i: self.text[i])
