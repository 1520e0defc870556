"""Routes of orders about models: load, unload, pin and limit them, for admins."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, TypeVar

from aiohttp import web
from msgspec import UNSET, structs

from balancer.api.models import node_orders
from balancer.api.models.bodies import LimitOrder, LoadOrder, PinOrder, UnloadOrder
from balancer.api.nodes import named
from balancer.discovery.node_answers import OrderRefused
from balancer.discovery.node_client import NodeClient
from balancer.fleet.catalog import STATES, catalog, entries, state_of
from balancer.fleet.engines import EngineCandidate
from balancer.fleet.members import Node
from balancer.lifecycle.replicas.limits import FleetLimits, ReplicaLimits
from balancer.lifecycle.replicas.wishes import is_loaded, load_cost
from balancer.state import BalancerState
from edgeserve.errors import BadRequest, EdgeserveError, NodeLost, UnknownModel
from edgeserve.http.server.aiohttp_routes import AioHandler, guarded, json_response
from edgeserve.http.server.context import Admit
from edgeserve.openai import names_of, normal
from edgeserve.orders.engines import DesiredModel
from edgeserve.wire import NodeReport, decode

Json = dict[str, Any]
T = TypeVar("T")


class NotLoadable(EdgeserveError):
    """No node can load the model now; the sentence says why of each."""

    status = 409
    code = "not_loadable"
    kind = "invalid_request_error"


@dataclass(frozen=True, kw_only=True)
class OrderRoutes:
    """The routes that change what is loaded. `manages` guards them."""

    state: BalancerState
    nodes: NodeClient
    limits: FleetLimits
    manages: Admit

    def routes(self) -> Iterable[web.RouteDef]:
        """Return the routes."""
        actions: dict[str, AioHandler] = {
            "load": self.load,
            "unload": self.unload,
            "pin": self.pin,
            "limit": self.limit,
        }
        for action, handler in actions.items():
            path = f"/edgeserve/v1/models/{{name}}/{action}"
            yield web.post(path, guarded(self.manages, handler))

    async def load(self, request: web.Request) -> web.Response:
        """Load it where that costs least, or on the named node; 200 if it is loaded."""
        order = await _body(request, LoadOrder)
        model, engines = self._meant(request.match_info["name"])
        if order.node is not None:
            engines = _on(order.node, engines, model)
        for each in sorted(filter(is_loaded, engines), key=_rank):
            return _loading(each, each.engine, 200 if _is_ready(each) else 202)
        chosen = self._cheapest(model, engines, named=order.node is not None)
        if chosen.engine.group:
            raise NotLoadable(
                f"{model} fits on no single node; `edgeserve models group {model}` has"
                " several serve it together, as a request does"
            )
        report = await node_orders.load(self.nodes, chosen, drain=order.drain)
        return _loading(chosen, report, 202)

    async def unload(self, request: web.Request) -> web.Response:
        """Unload it on every node, or on the named one; refused where all refuse."""
        order = await _body(request, UnloadOrder)
        shown = await self.unload_model(request.match_info["name"], order)
        return json_response(shown, status=202)

    async def unload_model(self, name: str, order: UnloadOrder) -> Json:
        """Unload a model; returns what nodes have done, and what they refuse."""
        model, engines = self._meant(name)
        if order.node is not None:
            engines = _on(order.node, engines, model)
        loaded = list(filter(is_loaded, engines))
        told, refused = await _all(
            node_orders.unload(self.nodes, each, drain=order.drain) for each in loaded
        )
        done = [
            {"node": each.node, "engine": report}
            for each, report in zip(loaded, told, strict=True)
            if report is not None
        ]
        return {"model": model, "unloaded": done, "refused": refused}

    async def pin(self, request: web.Request) -> web.Response:
        """Keep it loaded on a node: where it is, else where that costs least."""
        order = await _body(request, PinOrder)
        model, engines = self._meant(request.match_info["name"])
        if order.off:
            holding = [n for n in self._holding(model) if desired_of(n, model).pinned]
            nodes = _only(order.node, holding, "has it pinned")
            return await self._desire(model, nodes, *self._pins(model), pinned=False)
        if order.node is not None:
            nodes = _only(order.node, self._holding(model), f"has {model}")
        else:
            loaded = sorted(filter(is_loaded, engines), key=_rank)
            best = loaded[0] if loaded else self._cheapest(model, engines)
            nodes = [n for n in self._holding(model) if n.id == best.node_id]
        return await self._desire(model, nodes, pinned=True, forbidden=False)

    async def limit(self, request: web.Request) -> web.Response:
        """Change its limits; see `LimitOrder`."""
        order = await _body(request, LimitOrder)
        model, _ = self._meant(request.match_info["name"])
        fleet = _set(min=order.min, max=order.max)
        if fleet and order.node is not None:
            raise BadRequest("`min` and `max` are of the fleet; leave `node` away")
        changes = _set(keep_alive=order.keep_alive, forbidden=order.forbidden)
        if order.forbidden is True:
            changes["pinned"] = False
        if fleet:
            await self.limits.put(model, _changed(self.limits.of(model), fleet))
        if not changes:
            return self._told(model, {})
        nodes = _only(order.node, self._holding(model), f"has {model}")
        return await self._desire(model, nodes, **changes)

    async def keep_model(self, name: str, seconds: float) -> None:
        """Have a model leave after so many idle seconds, infinity for never.

        Only nodes that were told otherwise are told.
        """
        model, _ = self._meant(name)
        wanted = 0.0 if seconds == inf else seconds
        nodes = [
            node
            for node in self._holding(model)
            if desired_of(node, model).keep_alive != wanted
        ]
        await self._desire(model, nodes, keep_alive=wanted)

    def _meant(self, name: str) -> tuple[str, list[EngineCandidate]]:
        """Return the model or variant in normal spelling, and its engines."""
        key, candidates = normal(name), self.state.current.candidates
        engines = [each for each in candidates if each.serves(key)]
        if engines and key not in {n for each in engines for n in each.listed}:
            key = engines[0].listed[1]  # it was a file's name
        if not engines and key not in self.limits.all() and not self._holding(key):
            known = [each.name for each in entries(catalog(candidates))]
            raise UnknownModel(name, known)
        return key, engines

    def _holding(self, model: str) -> list[Node]:
        """Return the nodes that have it on their disk, or were told about it."""
        return [
            node
            for node in self.state.current.fleet.nodes
            if node.state != "unreachable" and model in _names(node.report)
        ]

    def _cheapest(
        self, model: str, engines: Sequence[EngineCandidate], *, named: bool = False
    ) -> EngineCandidate:
        """Return where to load it; a named node is asked whatever it reports."""
        able = [each for each in engines if state_of(each) == "available"]
        if not able and named:
            able = list(engines)
        if not able:
            whys = [f"{each.node}: {each.unavailable}" for each in engines]
            whys = whys or list(self._unplanned(model)) or ["no node has its file"]
            raise NotLoadable(f"no node can load {model} now: {'; '.join(whys)}")
        others = self.state.current.candidates
        return min(able, key=lambda each: (_leaves(each), load_cost(each, others)))

    def _unplanned(self, model: str) -> Iterator[str]:
        """Yield why nodes that have its file do not serve it, and the remedy."""
        for node in self.state.current.fleet.nodes:
            for each in node.report.available:
                if model in {normal(each.model), normal(each.variant)}:
                    yield f"{node.name}: {each.reason}; {each.remedy}"

    def _pins(self, model: str) -> Iterator[str]:
        """Yield the pins of the same model by its other names, which stay."""
        base = model.partition(":")[0]
        for node in self.state.current.fleet.nodes:
            for each in node.report.desired:
                other = each.model != model and each.model.partition(":")[0] == base
                if other and each.pinned:
                    yield f"{each.model} stays pinned to {node.name}, by that name"

    async def _desire(
        self, model: str, nodes: Iterable[Node], *said: str, **changes: Any
    ) -> web.Response:
        """Tell nodes what changes of what they were told about the model.

        `said` is told to the admin beside the refusals.
        """
        wanted = [(n, structs.replace(desired_of(n, model), **changes)) for n in nodes]
        told, refused = await _all(
            node_orders.desire(self.nodes, node, desired) for node, desired in wanted
        )
        desired = {
            node.name: each
            for (node, each), answer in zip(wanted, told, strict=True)
            if answer is not None
        }
        return self._told(model, desired, [*said, *refused])

    def _told(
        self, model: str, desired: Json, refused: Sequence[str] = ()
    ) -> web.Response:
        limits = self.limits.of(model)
        shown = {"model": model, "limits": limits, "desired": desired}
        return json_response({**shown, "refused": refused})


async def _all(orders: Iterable[Awaitable[T]]) -> tuple[list[T | None], list[str]]:
    """Give all orders at once; returns the answers, and the sentences of refusals.

    Raises the first refusal where there is no answer.
    """
    results = await asyncio.gather(*orders, return_exceptions=True)
    answers, refused = list[T | None](), list[EdgeserveError]()
    for each in results:
        if isinstance(each, OrderRefused | NodeLost):
            refused.append(each)
            answers.append(None)
        elif isinstance(each, BaseException):
            raise each
        else:
            answers.append(each)
    if refused and len(refused) == len(answers):
        raise refused[0]
    return answers, list(map(str, refused))


def desired_of(node: Node, model: str) -> DesiredModel:
    """Return what a node was told about a model."""
    told = (each for each in node.report.desired if each.model == model)
    return next(told, DesiredModel(model=model))


async def _body(request: web.Request, shape: type[T]) -> T:
    """Read a body; none is one without fields. Raises BadRequest."""
    return decode(await request.read() or b"{}", shape)


def _names(report: NodeReport) -> set[str]:
    found = {name for each in report.engines for name in names_of(each)}
    for each in report.available:
        found.update(map(normal, (each.model, each.variant, each.file)))
    return found | {each.model for each in report.desired}


def _on(
    node: str, engines: Sequence[EngineCandidate], model: str
) -> list[EngineCandidate]:
    """Return the engines of the node that is meant. Raises NoSuchNode, BadRequest."""
    known = {each.node_id: each.node for each in engines}
    id_ = named(node, known, f"has {model}")
    return [each for each in engines if each.node_id == id_]


def _only(node: str | None, nodes: Sequence[Node], what: str) -> Sequence[Node]:
    """Return the node that is meant, all without one."""
    if node is None:
        return nodes
    id_ = named(node, {each.id: each.name for each in nodes}, what)
    return [each for each in nodes if each.id == id_]


def _set(**fields: Any) -> Json:
    """Return the fields that are given."""
    return {name: value for name, value in fields.items() if value is not UNSET}


def _changed(limits: ReplicaLimits, fields: Json) -> ReplicaLimits:
    try:
        return structs.replace(limits, **fields)
    except ValueError as error:
        raise BadRequest(str(error)) from error


def _rank(candidate: EngineCandidate) -> tuple[int, int, str]:
    """Order loaded engines: the idlest of those that are ready first."""
    state = state_of(candidate) or "available"
    return STATES.index(state), candidate.engine.busy, candidate.node


def _is_ready(candidate: EngineCandidate) -> bool:
    return state_of(candidate) == "loaded"


def _leaves(candidate: EngineCandidate) -> bool:
    return candidate.engine.state == "leaving"


def _loading(to: EngineCandidate, report: Any, status: int) -> web.Response:
    shown = {"model": to.listed[1], "node": to.node, "engine": report}
    return json_response(shown, status=status)
