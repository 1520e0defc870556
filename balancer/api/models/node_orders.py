"""Admin orders: pass on to a node what an admin asks, and back what it answers."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TypeVar

import msgspec

from balancer.discovery.node_client import NodeClient
from balancer.fleet.engines import EngineCandidate
from balancer.fleet.members import Node
from edgeserve.errors import BadRequest, EdgeserveError, NodeLost
from edgeserve.http.types import Answer, Origin
from edgeserve.openai import code, message
from edgeserve.orders.engines import (
    DESIRE,
    LOAD,
    UNLOAD,
    DesiredModel,
    LoadEngine,
    UnloadEngine,
)
from edgeserve.wire import EngineReport, decode, encode

ANSWER_SECONDS = 15.0
"""Time of a node to answer; it does not wait for the load."""

WHY = "an admin asked for it"

T = TypeVar("T")


class OrderRefused(EdgeserveError):
    """A node refuses an order; status, code and sentence are the node's."""

    status = 409
    code = "order_refused"
    kind = "invalid_request_error"

    def __init__(
        self, status: int, code: str, sentence: str, retry: int | None
    ) -> None:
        super().__init__(sentence)
        self.status, self.code, self.retry_after = status, code, retry


async def load(
    nodes: NodeClient, to: EngineCandidate, *, drain: bool = False
) -> EngineReport:
    """Have an engine loaded; returns its report. Raises OrderRefused, NodeLost."""
    order = LoadEngine(engine=to.engine.id, drain=drain, why=WHY)
    return await _told(nodes, to.origin, to.node, LOAD, order, EngineReport)


async def unload(
    nodes: NodeClient, to: EngineCandidate, *, drain: bool = True
) -> EngineReport:
    """Have an engine unloaded; returns its report. Raises OrderRefused, NodeLost."""
    order = UnloadEngine(engine=to.engine.id, drain=drain, why=WHY)
    return await _told(nodes, to.origin, to.node, UNLOAD, order, EngineReport)


async def desire(
    nodes: NodeClient, to: Node, model: DesiredModel
) -> tuple[DesiredModel, ...]:
    """Tell a node about a model; returns all that it was told.

    Raises OrderRefused, NodeLost.
    """
    shape = tuple[DesiredModel, ...]
    return await _told(nodes, to.origin, to.name, DESIRE, model, shape)


async def _told(
    nodes: NodeClient,
    origin: Origin,
    node: str,
    path: str,
    order: msgspec.Struct,
    shape: type[T],
) -> T:
    try:
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            nodes.order(origin, path, encode(order)) as answer,
        ):
            body = await answer.read()
    except TimeoutError as error:
        raise NodeLost(f"{node} did not answer in {ANSWER_SECONDS:g} s") from error
    if answer.status // 100 != 2:
        raise _refusal(node, answer, body)
    try:
        return decode(body, shape)
    except BadRequest as error:
        raise NodeLost(f"{node} answers an order with what is {error}") from error


def _refusal(node: str, answer: Answer, body: bytes) -> OrderRefused:
    retry: int | None = None
    with suppress(ValueError):
        retry = int(answer.headers.get("retry-after", ""))
    sentence = f"{node}: {message(body)}"
    return OrderRefused(answer.status, code(body) or OrderRefused.code, sentence, retry)
