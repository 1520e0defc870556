"""Route that removes a model's files from the nodes that have them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from balancer.api.nodes import named
from balancer.discovery.node_client import NodeClient
from balancer.fleet.members import Node
from balancer.state import BalancerState
from edgeserve.errors import EdgeserveError, NodeLost
from edgeserve.http.server.aiohttp_routes import guarded, json_response
from edgeserve.http.server.context import Admit
from edgeserve.orders.removal import REMOVE, RemovedModel, RemoveModel
from edgeserve.wire import MALFORMED, decode, encode

REMOVAL_SECONDS = 15.0
"""How long a node may take; a card needs seconds to give back a large file."""

ABSENT = "model_not_found"


class RemoveFrom(msgspec.Struct, frozen=True, kw_only=True):
    """Body: the node's name or id, or all that have the model; see `RemoveModel`."""

    node: str = ""
    preview: bool = False


class NodeRefuses(EdgeserveError):
    """A node does not remove a model; status and code are the node's."""

    def __init__(self, status: int, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.code = status, code

    def but(self, what: str) -> NodeRefuses:
        """Return the same with what has been done nevertheless."""
        return NodeRefuses(self.status, self.code, f"{self}; {what}")


class _Error(msgspec.Struct):
    message: str
    code: str = ""


class _Envelope(msgspec.Struct):
    error: _Error


def removal_routes(
    state: BalancerState, nodes: NodeClient, manages: Admit
) -> Iterable[web.RouteDef]:
    """Return the route, which `manages` guards."""
    remover = ModelRemover(state=state, nodes=nodes)
    path = "/edgeserve/v1/models/{name}/remove"
    return [web.post(path, guarded(manages, remover.remove))]


@dataclass(frozen=True, kw_only=True)
class ModelRemover:
    """Asks the nodes of the fleet to remove a model."""

    state: BalancerState
    nodes: NodeClient

    async def remove(self, request: web.Request) -> web.Response:
        """Remove a model, from one node or from all that have it."""
        asked = decode(await request.read() or b"{}", RemoveFrom)
        found = await self.removed(request.match_info["name"], asked)
        return json_response({"nodes": [_shown(*each) for each in found]})

    async def removed(
        self, name: str, asked: RemoveFrom
    ) -> list[tuple[Node, RemovedModel]]:
        """Remove a model unless a node uses it; returns what was there.

        All are asked first, so that none removes it where another one refuses.
        """
        preview = RemoveModel(model=name, preview=True)
        found = await self._told(self._of(asked.node), preview)
        if not found:
            raise NodeRefuses(
                HTTPStatus.NOT_FOUND,
                ABSENT,
                f"no node has a file of {name!r}; `edgeserve nodes` says what is there",
            )
        if not asked.preview:
            having = [node for node, _ in found]
            found = await self._told(having, RemoveModel(model=name))
        return found

    def _of(self, name: str) -> list[Node]:
        """Return the nodes to ask: all but those that are gone. Raises NoSuchNode."""
        fleet = self.state.current.fleet
        ours = [each for each in fleet.nodes if each.takes_orders]
        there = [each for each in ours if each.state != "unreachable"]
        if not name:
            return there
        id_ = named(name, {each.id: each.name for each in there}, "answers")
        return [each for each in there if each.id == id_]

    async def _told(
        self, nodes: Iterable[Node], order: RemoveModel
    ) -> list[tuple[Node, RemovedModel]]:
        """Tell nodes, all at once; those that do not have the model are left out."""
        told = tuple(nodes)
        answers = await asyncio.gather(
            *(self._tell(node, order) for node in told), return_exceptions=True
        )
        pairs = list(zip(told, answers, strict=True))
        found = [(n, each) for n, each in pairs if isinstance(each, RemovedModel)]
        for each in answers:
            if isinstance(each, NodeRefuses) and found and not order.preview:
                others = ", ".join(node.name for node, _ in found)
                raise each.but(f"it was removed from {others}")
            if isinstance(each, BaseException):
                raise each
        return found

    async def _tell(self, node: Node, order: RemoveModel) -> RemovedModel | None:
        try:
            async with (
                asyncio.timeout(REMOVAL_SECONDS),
                self.nodes.order(node.origin, REMOVE, encode(order)) as answer,
            ):
                body = await answer.read()
                status = answer.status
            if status == HTTPStatus.OK:
                return msgspec.json.decode(body, type=RemovedModel)
        except MALFORMED as error:
            raise NodeLost(f"{node.name} gives an odd answer: {error}") from error
        except (NodeLost, TimeoutError) as error:
            why = str(error) or f"nothing in {REMOVAL_SECONDS:g} s"
            raise NodeLost(
                f"{node.name} does not answer: {why}; --node asks another one alone"
            ) from error
        refused = _refusal(body)
        if refused.code == ABSENT:
            return None
        raise NodeRefuses(status, refused.code, f"{node.name}: {refused.message}")


def _refusal(body: bytes) -> _Error:
    try:
        return msgspec.json.decode(body, type=_Envelope).error
    except MALFORMED:
        return _Error("it refuses without a reason", "node_refused")


def _shown(node: Node, removed: RemovedModel) -> dict[str, Any]:
    return {"id": node.id, "name": node.name, **msgspec.structs.asdict(removed)}
