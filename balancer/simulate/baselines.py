"""Baseline policies: round robin, least connections and other known ones."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from zlib import crc32

from balancer.simulate.engine import Event
from balancer.simulate.fleets import Machine
from balancer.simulate.world import Act, Start
from balancer.telemetry.trace import Call


class Classic:
    """A policy that picks an engine at once, by a rule.

    `open` counts the requests of each engine; `turns` counts the picks.
    """

    def __init__(self, fleet: Sequence[Machine], rule: Rule) -> None:
        self.fleet = fleet
        self.rule = rule
        self.open = [0] * len(fleet)
        self.turns = count()
        self.chance = random.Random(1)  # noqa: S311 - a simulation

    def arrive(self, call: Call, now: float) -> Sequence[Act]:  # noqa: ARG002
        """Start a request on one of the engines that serve its model."""
        able = [i for i, each in enumerate(self.fleet) if each.serves(call.model)]
        engine = self.rule(self, call, able)
        self.open[engine] += 1
        return (Start(call, engine),)

    def notice(self, event: Event, engine: int, now: float) -> Sequence[Act]:  # noqa: ARG002
        """Count requests that end."""
        if event.kind == "end":
            self.open[engine] -= 1
        return ()

    def wake(self, now: float) -> Sequence[Act]:  # noqa: ARG002
        """Do nothing: it decides at once."""
        return ()


class Queued:
    """HAProxy's `leastconn` with `maxconn` at the number of slots: one queue, in order.

    `open` counts the requests of each engine.
    """

    def __init__(self, fleet: Sequence[Machine]) -> None:
        self.fleet = fleet
        self.open = [0] * len(fleet)
        self.waiting: list[Call] = []

    def arrive(self, call: Call, now: float) -> Sequence[Act]:
        """Queue a request, and start what can start."""
        self.waiting.append(call)
        return self.wake(now)

    def notice(self, event: Event, engine: int, now: float) -> Sequence[Act]:
        """Give the slot of a request that ends to the next."""
        if event.kind != "end":
            return ()
        self.open[engine] -= 1
        return self.wake(now)

    def wake(self, now: float) -> Sequence[Act]:  # noqa: ARG002
        """Start the requests for which an engine has a slot, the first that came first.

        Of the engines the one with the fewest requests is taken.
        """
        acts: list[Act] = []
        for call in tuple(self.waiting):
            free = [
                i
                for i, each in enumerate(self.fleet)
                if each.serves(call.model) and self.open[i] < each.slots
            ]
            if free:
                engine = min(free, key=lambda i: self.open[i])
                self.open[engine] += 1
                self.waiting.remove(call)
                acts.append(Start(call, engine))
        return acts


Rule = Callable[[Classic, Call, list[int]], int]
"""Chooses one of the engines that serve a call's model."""


def round_robin(seen: Classic, _: Call, able: list[int]) -> int:
    """Pick one engine after the other."""
    return able[next(seen.turns) % len(able)]


def least_connections(seen: Classic, _: Call, able: list[int]) -> int:
    """Pick the fewest open requests; at random among equals, as Caddy does."""
    return min(able, key=lambda i: (seen.open[i], seen.chance.random()))


def least_connections_by_slots(seen: Classic, _: Call, able: list[int]) -> int:
    """Pick the fewest open requests per slot: nginx and HAProxy with good weights."""
    slots = [each.slots for each in seen.fleet]
    return min(
        able, key=lambda i: ((seen.open[i] + 1) / slots[i], seen.chance.random())
    )


def two_choices(seen: Classic, _: Call, able: list[int]) -> int:
    """Pick the less loaded of two engines that are drawn at random."""
    drawn = seen.chance.sample(able, min(2, len(able)))
    return min(drawn, key=lambda i: seen.open[i])


def session_hash(_: Classic, call: Call, able: list[int]) -> int:
    """Pick the same engine for all of a conversation, by rendezvous hashing."""
    return max(able, key=lambda i: crc32(f"{call.session}/{i}".encode()))


@dataclass
class CacheAware:
    """SGLang's router: the longest known prefix, unless the load is unbalanced.

    As in `policies/cache_aware.rs`: unbalanced when most - least > `absolute` and most
    > `relative`·least, then the shortest queue; else the engine of the longest match if
    it is more than `threshold` of the prompt, else the one with least text.
    """

    absolute: int = 64
    relative: float = 1.5
    threshold: float = 0.3
    tree: dict[bytes, int] = field(default_factory=dict[bytes, int])
    text: Counter[int] = field(default_factory=Counter[int])

    def __call__(self, seen: Classic, call: Call, able: list[int]) -> int:
        """Pick as above; the prompt then counts as known there."""
        engine = self._choose(seen.open, call, able)
        before = 0
        for block, end in zip(call.prompt.blocks, call.prompt.ends, strict=True):
            if self.tree.get(block) != engine:
                self.tree[block] = engine
                self.text[engine] += end - before
            before = end
        return engine

    def _choose(self, open_: list[int], call: Call, able: list[int]) -> int:
        most, least = max(open_[i] for i in able), min(open_[i] for i in able)
        if most - least > self.absolute and most > self.relative * least:
            return min(able, key=lambda i: open_[i])
        known, engine = 0, -1
        for block, end in zip(call.prompt.blocks, call.prompt.ends, strict=True):
            if block not in self.tree:
                break
            known, engine = end, self.tree[block]
        if known > self.threshold * call.prompt.size and engine in able:
            return engine
        return min(able, key=lambda i: self.text[i])
