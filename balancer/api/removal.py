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
from balancer.discovery.node_answers import OrderRefused, told
from balancer.discovery.node_client import NodeClient
from balancer.fleet.members import Node
from balancer.state import BalancerState
from edgeserve.errors import NodeLost
from edgeserve.http.server.aiohttp_routes import guarded, json_response
from edgeserve.http.server.context import Admit
from edgeserve.orders.removal import REMOVE, RemovedModel, RemoveModel
from edgeserve.wire import decode, encode

REMOVAL_SECONDS = 15.0
"""How long a node may take; a card needs seconds to give back a large file."""

ABSENT = "model_not_found"


class RemoveFrom(msgspec.Struct, frozen=True, kw_only=True):
    """Body: the node's name or id, or all that have the model; see `RemoveModel`."""

    node: str = ""
    preview: bool = False


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
            raise OrderRefused(
                "",
                f"no node has a file of {name!r}; `edgeserve nodes` says what is there",
                status=HTTPStatus.NOT_FOUND,
                code=ABSENT,
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
        asked = tuple(nodes)
        answers = await asyncio.gather(
            *(self._tell(node, order) for node in asked), return_exceptions=True
        )
        pairs = list(zip(asked, answers, strict=True))
        found = [(n, each) for n, each in pairs if isinstance(each, RemovedModel)]
        for each in answers:
            if isinstance(each, OrderRefused) and found and not order.preview:
                others = ", ".join(node.name for node, _ in found)
                raise each.but(f"it was removed from {others}")
            if isinstance(each, BaseException):
                raise each
        return found

    async def _tell(self, node: Node, order: RemoveModel) -> RemovedModel | None:
        answering = self.nodes.order(node.origin, REMOVE, encode(order))
        try:
            async with asyncio.timeout(REMOVAL_SECONDS):
                return await told(answering, node.name, RemovedModel)
        except OrderRefused as refusal:
            if refusal.code == ABSENT:
                return None
            if refusal.code != OrderRefused.code:
                raise
            why, status = "it refuses without a reason", refusal.status
            raise OrderRefused(
                node.name, why, status=status, code="node_refused"
            ) from None
        except (NodeLost, TimeoutError) as error:
            why = str(error) or f"nothing in {REMOVAL_SECONDS:g} s"
            raise NodeLost(
                f"{node.name} does not answer: {why}; --node asks another one alone"
            ) from error


def _shown(node: Node, removed: RemovedModel) -> dict[str, Any]:
    return {"id": node.id, "name": node.name, **msgspec.structs.asdict(removed)}
