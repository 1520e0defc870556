"""Builders for the tests of the balancer."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from balancer.fleet.engines import EngineCandidate
from balancer.fleet.members import Fleet
from balancer.queue import RequestQueue
from balancer.routing.decision import Decision, RoutingRequest
from edgeserve.http.types import Origin
from edgeserve.wire import EngineReport, NodeReport
from tests.fakes.reports import a_report, an_engine
from tests.patience import PATIENCE

HERE = Origin("10.0.0.1", 8090)
THERE = Origin("10.0.0.2", 8090)


def a_candidate(
    node: str = "pi", engine: EngineReport | None = None, **changes: Any
) -> EngineCandidate:
    fields: dict[str, Any] = {
        "node_id": node,
        "node": node,
        "origin": HERE,
        "engine": engine or an_engine(),
    }
    return EngineCandidate(**fields | changes)


def a_request(model: str = "small", **changes: Any) -> RoutingRequest:
    return RoutingRequest(**{"model": model, "ability": "chat"} | changes)


def a_fleet(*names: str, report: NodeReport | None = None) -> Fleet:
    """Build a fleet in which every named node is up, each seen under its name."""
    fleet = Fleet()
    for number, name in enumerate(names):
        origin = Origin(f"10.0.0.{number + 1}", 8090)
        fleet = fleet.discovered(name, "static", (origin,), None)
        said = report or a_report(an_engine(), name=name)
        fleet = fleet.reported(name, origin, said)
    return fleet


def changed(report: NodeReport, **fields: Any) -> NodeReport:
    return msgspec.structs.replace(report, **fields)


class Holder:
    """A task that claims a slot and holds it until `done`."""

    def __init__(self, queue: RequestQueue, routing: RoutingRequest) -> None:
        self.holding = asyncio.Event()
        self.let_go = asyncio.Event()
        self.task = asyncio.ensure_future(self._hold(queue, routing))

    async def _hold(self, queue: RequestQueue, routing: RoutingRequest) -> str:
        async with queue.claim(routing, unheard) as send:
            self.holding.set()
            await self.let_go.wait()
            return send.to.node

    async def held(self) -> Holder:
        async with asyncio.timeout(PATIENCE):
            await self.holding.wait()
        return self

    async def done(self) -> str:
        self.let_go.set()
        async with asyncio.timeout(PATIENCE):
            return await self.task


def unheard(decision: Decision) -> None:
    """Do nothing."""
