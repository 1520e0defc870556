"""Event loop for machines with several engines, which share the machine's speed."""

from __future__ import annotations

import random
from collections.abc import Iterable

from balancer.simulate.engine import Engine
from balancer.simulate.loading.fleets import HostFleet
from balancer.simulate.world import CallOutcome, Policy, World
from balancer.telemetry.trace import Call


class HostWorld(World):
    """Engines that work at once on one machine each get an equal share of it."""

    hosts: dict[int, list[int]]
    """The engines of each engine's machine."""

    def foresee(self, engine: int) -> None:
        """Share the machine anew where an engine begins to work, or stops."""
        World.foresee(self, engine)
        now = self.engines[engine].now
        beside = [self.engines[i] for i in self.hosts[engine]]
        share = float(max(1, sum(bool(each.runs) for each in beside)))
        for i in self.hosts[engine]:
            if self.engines[i].share != share:
                self.engines[i].advance(now)
                self.engines[i].share = share
                World.foresee(self, i)


def play(
    fleet: HostFleet, calls: Iterable[Call], policy: Policy, seed: int = 1
) -> list[CallOutcome]:
    """Run one policy over one trace on one fleet; deterministic."""
    chance = random.Random(seed)  # noqa: S311 - a simulation
    world = HostWorld([Engine(each) for each in fleet.engines], policy, chance)
    world.hosts = {
        number: [i for i, each in enumerate(fleet.engines) if each.host == one.host]
        for number, one in enumerate(fleet.engines)
    }
    return world.run(calls)
