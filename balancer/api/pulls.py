"""Routes of pulls: have nodes pull a model, and show how far each is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from aiohttp import web

from balancer.api.nodes import named
from balancer.clients.admission import Admission
from balancer.discovery.node_answers import OrderRefused, told
from balancer.discovery.node_client import NodeClient
from balancer.fleet.members import Fleet, Node
from balancer.fleet.peers import id_of, peer_of
from balancer.state import BalancerState
from edgeserve.errors import BadRequest, EdgeserveError, NodeLost, NoNode, in_words
from edgeserve.http.server.aiohttp_routes import guarded, json_response
from edgeserve.http.types import Answer
from edgeserve.orders.pulls import PULLS, FleetPull, PullOrder, PullReport
from edgeserve.wire import decode, encode

ANSWER_SECONDS = 10.0
"""How long a node may take to accept an order."""

Json = dict[str, Any]

ToldPull = tuple[Node, PullReport | None, str]
"""A node that was told to pull: its pull, or why there is none."""


class NoSuchPull(EdgeserveError):
    """No node has a pull of that id."""

    status = 404
    code = "pull_not_found"


def chosen(fleet: Fleet, order: FleetPull) -> list[Node]:
    """Return the nodes that an order is for. Pure. Raises BadRequest, NoNode."""
    if order.everywhere == bool(order.nodes):
        raise BadRequest("name the nodes, or say `everywhere`: one of the two")
    ours = [each for each in fleet.nodes if each.takes_orders]
    up = {each.id: each for each in ours if each.state == "up"}
    if not up:
        raise NoNode("no node is up")
    if order.everywhere:
        return list(up.values())
    names = {id_: each.name for id_, each in up.items()}
    return [up[id_] for id_ in {named(each, names, "is up"): 0 for each in order.nodes}]


def orders(
    fleet: Fleet, nodes: Iterable[Node], order: FleetPull
) -> list[tuple[Node, PullOrder]]:
    """Return what each node is told, in the order in which it has to be told. Pure.

    The first is the one with the lowest id: while it works, the others wait for it, so
    that the internet is crossed once. All nodes that are up are peers.
    """
    up = [each for each in fleet.nodes if each.state == "up" and each.takes_orders]
    return [
        (
            node,
            PullOrder(
                source=order.source,
                revision=order.revision,
                peers=tuple(peer_of(fleet, each) for each in up if each.id != node.id),
            ),
        )
        for node in sorted(nodes, key=id_of)
    ]


def pulls_of(fleet: Fleet) -> list[Json]:
    """Render the pulls of all nodes. Pure."""
    return [_shown(node, pull) for node in fleet.nodes for pull in node.report.pulls]


@dataclass(frozen=True)
class PullRoutes:
    """The routes. All are for admins; orders need an admin's key."""

    state: BalancerState
    nodes: NodeClient
    clients: Admission

    def routes(self) -> Iterable[web.RouteDef]:
        """Return the routes."""
        manages = self.clients.manager
        return [
            web.get(PULLS, guarded(self.clients.admin, self.pulls)),
            web.post(PULLS, guarded(manages, self.order)),
            web.delete(f"{PULLS}/{{id}}", guarded(manages, self.cancel)),
        ]

    @property
    def _fleet(self) -> Fleet:
        return self.state.current.fleet

    async def pulls(self, _: web.Request) -> web.Response:
        """List the pulls of all nodes."""
        return json_response(pulls_of(self._fleet))

    async def order(self, request: web.Request) -> web.Response:
        """Have nodes pull a model; answers what each has said."""
        answers = await self.begin(decode(await request.read(), FleetPull))
        return json_response([_shown(*each) for each in answers])

    async def begin(self, order: FleetPull) -> list[ToldPull]:
        """Have nodes pull a model; returns what each has said."""
        first, *others = orders(self._fleet, chosen(self._fleet, order), order)
        answers = [await self._told(*first)]
        return answers + await asyncio.gather(*(self._told(*each) for each in others))

    async def cancel(self, request: web.Request) -> web.Response:
        """Stop one pull; what has come is kept."""
        id_ = request.match_info["id"]
        for node in self._fleet.nodes:
            if any(each.id == id_ for each in node.report.pulls):
                async with asyncio.timeout(ANSWER_SECONDS):
                    answering = self.nodes.withdraw(node.origin, f"{PULLS}/{id_}")
                    pull = await _pull(answering, node)
                return json_response(_shown(node, pull))
        raise NoSuchPull(f"no node has a pull {id_!r}")

    async def _told(self, node: Node, order: PullOrder) -> ToldPull:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answering = self.nodes.order(node.origin, PULLS, encode(order))
                pull = await _pull(answering, node)
        except (EdgeserveError, OSError) as error:
            why = in_words(error) if str(error) else "it does not answer"
            return node, None, why
        return node, pull, ""


async def _pull(
    answering: AbstractAsyncContextManager[Answer], node: Node
) -> PullReport:
    """Return the report that a node answers. Raises NodeLost."""
    try:
        return await told(answering, node.name, PullReport)
    except OrderRefused as refusal:
        if refusal.status == HTTPStatus.NOT_FOUND:
            why = "it runs an older edgeserve, or has restarted"
            raise NodeLost(why) from refusal
        why = refusal.sentence or f"it answers {refusal.status}"
        raise NodeLost(why) from refusal


def _shown(node: Node, pull: PullReport | None, problem: str = "") -> Json:
    return {
        "node": node.id,
        "name": node.name,
        "state": node.state,
        "pull": pull,
        "problem": problem,
    }
