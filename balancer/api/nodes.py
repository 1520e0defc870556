"""Routes of nodes: list them, let them in, keep them out, show their logs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from string import hexdigits
from typing import Any

from aiohttp import web
from msgspec import structs

from balancer.discovery.joining import AskingNode, JoinRequests
from balancer.discovery.node_answers import OrderRefused, told
from balancer.discovery.node_client import NodeClient
from balancer.discovery.revocations import Revocations, RevokedNode
from balancer.energy.sleepers import Sleepers
from balancer.fleet.members import Node, NodeAddress
from balancer.prediction.energy.joules import EngineEnergy
from balancer.state import BalancerState
from edgeserve.errors import BadRequest, EdgeserveError, NodeLost, TooLate
from edgeserve.http.server.aiohttp_routes import (
    AioHandler,
    asked_from,
    guarded,
    json_response,
)
from edgeserve.http.server.context import Admit
from edgeserve.http.types import Origin
from edgeserve.orders.log import NodeLog
from edgeserve.security.certificates import ID_DIGITS
from edgeserve.security.registration import Approval, JoinRequest
from edgeserve.security.tokens import Guard
from edgeserve.wire import decode

LEAST_DIGITS = 4
"""Digits of an id that are enough to name a node."""

FOREIGN_PAGES = Guard((), "")
"""Refuses pages of other sites, which a browser lets post to loopback."""

LOG_SECONDS = 5.0
"""How long a node may take to send its log."""

THERE = "on that machine, `edgeserve service logs` has it"

Json = dict[str, Any]


class NoSuchNode(EdgeserveError):
    """No node has that name or id."""

    status = 404
    code = "node_not_found"
    kind = "invalid_request_error"


def named(name: str, known: Mapping[str, str], what: str) -> str:
    """Return the id of the node that `name` means; `known` is id → name. Pure.

    A name, an id, or the start of one. Raises NoSuchNode, BadRequest.
    """
    if name in known:
        return name
    found = [id_ for id_, each in known.items() if each == name]
    if not found and len(name) >= LEAST_DIGITS:
        found = [id_ for id_ in known if id_.startswith(name)]
    if not found:
        there = ", ".join(known.values()) or "none"
        raise NoSuchNode(f"no node {name!r} {what}; there are: {there}")
    if len(found) > 1:
        ids = " and ".join(found)
        raise BadRequest(f"several nodes are called {name!r}; use the id: {ids}")
    return found[0]


@dataclass(frozen=True, kw_only=True)
class NodeRoutes:
    """The routes that change which nodes belong to the fleet, and show their logs.

    `manages` guards all but the request to join. `sweep` closes the
    connections to revoked nodes.
    """

    state: BalancerState
    nodes: NodeClient
    requests: JoinRequests
    revocations: Revocations
    manages: Admit
    sweep: Callable[[], None]
    sleepers: Sleepers

    def routes(self) -> Iterable[web.RouteDef]:
        """Return the routes."""
        actions: dict[str, AioHandler] = {
            "approve": self.approve,
            "deny": self.deny,
            "revoke": self.revoke,
            "allow": self.allow,
            "sleep": self.sleep,
            "wake": self.wake,
        }
        yield web.post("/edgeserve/v1/join", self.join)
        path = "/edgeserve/v1/nodes/{name}/log"
        yield web.get(path, guarded(self.manages, self.log))
        for action, handler in actions.items():
            path = f"/edgeserve/v1/nodes/{{name}}/{action}"
            yield web.post(path, guarded(self.manages, handler))

    async def join(self, request: web.Request) -> web.Response:
        """Meet a machine that asks to join; see `balancer.discovery.joining`."""
        FOREIGN_PAGES.check(request.headers)
        peer = asked_from(request)
        await self.requests.ask(peer, decode(await request.read(), JoinRequest))
        return json_response({})

    async def approve(self, request: web.Request) -> web.Response:
        """Let a machine in that asks to join."""
        node = self._asking(request)
        approval = decode(await request.read(), Approval)
        await self.requests.approve(node, approval.code)
        return json_response({"id": node.id, "name": node.name})

    async def deny(self, request: web.Request) -> web.Response:
        """Send a machine away that asks to join."""
        node = self._asking(request)
        self.requests.deny(node)
        return json_response({"id": node.id, "name": node.name})

    def _asking(self, request: web.Request) -> AskingNode:
        asking = {each.id: each for each in self.requests.waiting}
        names = {id_: each.name for id_, each in asking.items()}
        return asking[named(request.match_info["name"], names, "asks to join")]

    async def revoke(self, request: web.Request) -> web.Response:
        """Keep a node out, and close its connections; its requests go elsewhere."""
        name, known = request.match_info["name"], dict(self._known())
        if len(name) == ID_DIGITS and not set(name) - set(hexdigits):
            known.setdefault(name, name)  # one that is not here now
        id_ = named(name, known, "has shown a certificate")
        try:
            await self.revocations.revoke(id_, known[id_])
        finally:
            self.sweep()
        for node in self.state.current.fleet.nodes:
            if id_ == node.origin.id and node.state == "asleep":
                self.sleepers.waker.gone(node)
        return json_response({"id": id_, "name": known[id_]})

    def _known(self) -> Iterator[tuple[str, str]]:
        """Yield id and name of each node that has shown its certificate, or is out."""
        for id_, revoked in self.revocations.nodes().items():
            yield id_, revoked.name
        for node in self.state.current.fleet.nodes:
            if node.origin.id:
                yield node.origin.id, node.name

    async def allow(self, request: web.Request) -> web.Response:
        """Let a node in again that was revoked."""
        known = {id_: node.name for id_, node in self.revocations.nodes().items()}
        id_ = named(request.match_info["name"], known, "is revoked")
        await self.revocations.allow(id_)
        return json_response({"id": id_, "name": known[id_]})

    async def sleep(self, request: web.Request) -> web.Response:
        """Let a node's machine sleep; the node refuses while it is in use."""
        node = self._ordered(request)
        await self.sleepers.order_sleep(node, "it was ordered", now=True)
        return json_response({"id": node.id, "name": node.name}, 202)

    async def wake(self, request: web.Request) -> web.Response:
        """Wake the machine of a node that sleeps."""
        node = self._ordered(request)
        if node.state != "asleep":
            raise BadRequest(f"{node.name} does not sleep: it is {node.state}")
        seconds = self.sleepers.waker.order(node)
        shown = {"id": node.id, "name": node.name, "seconds": round(seconds)}
        return json_response(shown, 202)

    def _ordered(self, request: web.Request) -> Node:
        nodes = [each for each in self.state.current.fleet.nodes if each.takes_orders]
        names = {each.id: each.name for each in nodes}
        id_ = named(request.match_info["name"], names, "takes orders")
        return next(each for each in nodes if each.id == id_)

    async def log(self, request: web.Request) -> web.Response:
        """Show the log lines that a node keeps; `?after=` those since an answer."""
        nodes = [each for each in self.state.current.fleet.nodes if each.takes_orders]
        names = {each.id: each.name for each in nodes}
        id_ = named(request.match_info["name"], names, "keeps a log")
        node = next(each for each in nodes if each.id == id_)
        after = request.query.get("after", "")
        return json_response(await logged(self.nodes, node, after))

    def _joules(self, node: Node) -> Json:
        """Return the joules of a token on each engine of a node, where known."""
        found = {
            each.id: self.state.predictive.energy.energy((node.id, each.id))
            for each in node.report.engines
        }
        return {id_: _joules_of(each) for id_, each in found.items() if each}

    def shown(self) -> list[Json]:
        """Render the fleet for `edgeserve nodes`.

        First nodes, then addresses without an answer, revoked nodes, and those that
        ask to join.
        """
        fleet, health = self.state.current.fleet, self.state.breakers.shown
        revoked = self.revocations.nodes()
        rows = [_node(each, health(each.id)) for each in fleet.nodes]
        for row, node in zip(rows, fleet.nodes, strict=True):
            row["joules"] = self._joules(node)
        rows += [
            _silent(each)
            for each in fleet.addresses.values()
            if each.last_report is None
        ]
        for row in rows:
            if row["id"] in revoked:
                row["state"] = "revoked"
                row["name"] = row["name"] or revoked[row["id"]].name
        ids = {row["id"] for row in rows}
        rows += [_revoked(id_, each) for id_, each in revoked.items() if id_ not in ids]
        return rows + [_asking(each) for each in self.requests.waiting]


def _joules_of(energy: EngineEnergy) -> Json:
    return {
        "read": round(energy.read, 4),
        "write": round(energy.write, 4),
        "measured": energy.measured,
    }


async def logged(nodes: NodeClient, node: Node, after: str) -> NodeLog:
    """Return a node's log lines. Raises NodeLost, TooLate."""
    try:
        async with asyncio.timeout(LOG_SECONDS):
            return await told(nodes.log(node.origin, after), node.name, NodeLog)
    except TimeoutError as error:
        sentence = f"{node.name} does not answer within {LOG_SECONDS:g} s; {THERE}"
        raise TooLate(sentence) from error
    except OrderRefused as refusal:
        why = refusal.sentence or f"it answers {refusal.status}"
        if refusal.status == HTTPStatus.NOT_FOUND:
            why = f"it runs an older edgeserve, which shows no log; {THERE}"
        raise NodeLost(f"{node.name}: {why}") from refusal
    except NodeLost as error:
        raise NodeLost(f"{node.name} is not reached ({error}); {THERE}") from error


def _row(id_: str | None, state: str, **fields: Any) -> Json:
    row: Json = {"id": id_, "name": None, "state": state, "url": "", "seen_as": []}
    row |= {"problem": None, "health": {}, "joules": {}, "report": None}
    return row | fields


def _node(node: Node, health: Mapping[str, str]) -> Json:
    return _row(
        node.id,
        node.state,
        name=node.name,
        url=_spoken_to(node.origin).url,
        seen_as=node.addresses,
        problem=node.problem,
        health=health,
        report=node.report,
    )


def _spoken_to(origin: Origin) -> Origin:
    """Return it with TLS where it has shown a certificate, whatever led there."""
    return structs.replace(origin, tls=origin.tls or bool(origin.id))


def _silent(address: NodeAddress) -> Json:
    return _row(
        address.expected,
        address.state,
        name=address.name or None,
        url=", ".join(each.url for each in address.origins),
        seen_as=[address.key],
        problem=address.problem,
    )


def _revoked(id_: str, node: RevokedNode) -> Json:
    problem = f"`edgeserve nodes allow {id_[:8]}` lets it in again"
    return _row(id_, "revoked", name=node.name, problem=problem)


def _asking(node: AskingNode) -> Json:
    return _row(
        node.id,
        "asking",
        name=node.name,
        url=node.origin.url,
        problem=f"asks to join, code {node.code}",
        code=node.code,
    )
