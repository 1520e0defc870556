"""Admin orders: pass on to a node what an admin asks, and back what it answers."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec

from balancer.discovery.node_answers import told
from balancer.discovery.node_client import NodeClient
from balancer.fleet.engines import EngineCandidate
from balancer.fleet.members import Node
from edgeserve.errors import NodeLost
from edgeserve.http.types import Origin
from edgeserve.orders.engines import (
    DESIRE,
    LOAD,
    UNLOAD,
    DesiredModel,
    LoadEngine,
    UnloadEngine,
)
from edgeserve.wire import EngineReport, encode

ANSWER_SECONDS = 15.0
"""Time of a node to answer; it does not wait for the load."""

WHY = "an admin asked for it"

T = TypeVar("T")


async def load(
    nodes: NodeClient, to: EngineCandidate, *, drain: bool = False
) -> EngineReport:
    """Have an engine loaded; returns its report. Raises OrderRefused, NodeLost."""
    _check(to.node, ours=to.engine.kind != "server")
    order = LoadEngine(engine=to.engine.id, drain=drain, why=WHY)
    return await _told(nodes, to.origin, to.node, LOAD, order, EngineReport)


async def unload(
    nodes: NodeClient, to: EngineCandidate, *, drain: bool = True
) -> EngineReport:
    """Have an engine unloaded; returns its report. Raises OrderRefused, NodeLost."""
    _check(to.node, ours=to.engine.kind != "server")
    order = UnloadEngine(engine=to.engine.id, drain=drain, why=WHY)
    return await _told(nodes, to.origin, to.node, UNLOAD, order, EngineReport)


async def desire(
    nodes: NodeClient, to: Node, model: DesiredModel
) -> tuple[DesiredModel, ...]:
    """Tell a node about a model; returns all that it was told.

    Raises OrderRefused, NodeLost.
    """
    _check(to.name, ours=to.takes_orders)
    shape = tuple[DesiredModel, ...]
    return await _told(nodes, to.origin, to.name, DESIRE, model, shape)


def _check(node: str, *, ours: bool) -> None:
    """Refuse what cannot be ordered, also where a node relays to it."""
    if not ours:
        raise NodeLost(
            f"{node} is a server of another program, not a node: it takes no orders;"
            " change its models there"
        )


async def _told(
    nodes: NodeClient,
    origin: Origin,
    node: str,
    path: str,
    order: msgspec.Struct,
    shape: type[T],
) -> T:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await told(nodes.order(origin, path, encode(order)), node, shape)
    except TimeoutError as error:
        raise NodeLost(f"{node} did not answer in {ANSWER_SECONDS:g} s") from error
