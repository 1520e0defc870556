"""Waiting requests: tell nodes that other balancers use, too, how many wait here.

A node cannot see the queue of a balancer, and gives each its turn only where it knows
that it waits. Nothing is sent where no other balancer was seen.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec

from balancer.discovery.node_client import NodeClient
from balancer.fleet.engines import EngineCandidate, EngineKey
from balancer.queue import RequestQueue
from balancer.state import BalancerState
from edgeserve.errors import NodeLost
from edgeserve.openai import normal
from edgeserve.orders.waiting import WAITING, WaitingRequests
from edgeserve.runtime.background import background, declared

PAUSE = 0.5
"""Seconds between two looks while requests wait."""

SHARED_SECONDS = 60.0
"""So long an engine counts as shared after slots of others were seen there."""

SECONDS = 1.0
"""Longest wait for a node's answer; the next look says it again."""

WATCH = declared("waiting requests")


@asynccontextmanager
async def telling(state: BalancerState, nodes: NodeClient) -> AsyncGenerator[None]:
    """Tell them for the length of the block."""
    async with background() as tasks:
        told = _Told(state, nodes)
        state.queue.grows.subscribe(told.grown.set)
        tasks.start(WATCH, told.watch)
        yield


@dataclass
class _Told:
    """What nodes were told, and which engines were seen to be shared, and when."""

    state: BalancerState
    nodes: NodeClient
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    shared: dict[EngineKey, float] = field(default_factory=dict[EngineKey, float])
    informed: dict[str, EngineCandidate] = field(
        default_factory=dict[str, EngineCandidate]
    )

    async def watch(self) -> None:
        """Look while requests wait, for ever."""
        while True:
            if not self.state.queue.waiting and not self.informed:
                await self.grown.wait()
            self.grown.clear()
            await self._look(asyncio.get_running_loop().time())
            await asyncio.sleep(PAUSE)

    async def _look(self, now: float) -> None:
        counts = self.state.slot_counts
        here = [
            each
            for each in self.state.current.candidates
            if each.engine.kind != "server"
        ]
        for each in here:
            if counts.of(each.key).others:
                self.shared[each.key] = now
        self.shared = {
            key: at for key, at in self.shared.items() if now - at < SHARED_SECONDS
        }
        seen = [each for each in here if each.key in self.shared]
        found = waiting(self.state.queue, seen)
        before, self.informed = self.informed, {}
        for each in here:
            if each.node_id in found:
                self.informed[each.node_id] = each
        told = (before | self.informed).items()
        tell = (self._tell(each, found.get(id_, {})) for id_, each in told)
        await asyncio.gather(*tell)

    async def _tell(self, to: EngineCandidate, engines: Mapping[str, int]) -> None:
        said = WaitingRequests(balancer=self.nodes.id, engines=dict(engines))
        try:
            async with (
                asyncio.timeout(SECONDS),
                self.nodes.order(to.origin, WAITING, msgspec.json.encode(said)) as got,
            ):
                await got.read()
        except (TimeoutError, NodeLost):
            return


def waiting(
    queue: RequestQueue, engines: Iterable[EngineCandidate]
) -> dict[str, dict[str, int]]:
    """Count, for each node and engine, the requests that wait for its model. Pure."""
    models = Counter(normal(each.model) for each in queue.requests)
    found: dict[str, dict[str, int]] = {}
    for each in engines:
        if wanted := sum(models[name] for name in each.names) + models[""]:
            found.setdefault(each.node_id, {})[each.engine.id] = wanted
    return found
