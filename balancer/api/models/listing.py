"""Routes of models: what clients can call, what admins see of it, and events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from balancer.api.events import event_stream
from balancer.api.models.groups import GroupRoutes
from balancer.api.models.orders import OrderRoutes
from balancer.api.models.overview import overview
from balancer.api.pulls import PullRoutes
from balancer.api.removal import removal_routes
from balancer.clients.admission import Admission
from balancer.clients.keys import ClientKey
from balancer.composition.routes import listed
from balancer.discovery.loops import ways_around
from balancer.fleet.catalog import CatalogEntry, catalog, entries
from balancer.lifecycle.events import LifecycleEvents
from balancer.state import BalancerState
from edgeserve.errors import UnknownModel
from edgeserve.http.server.aiohttp_routes import guarded, json_response
from edgeserve.openai import normal
from edgeserve.served import BEHIND
from edgeserve.wire import BALANCER_HEADER

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ModelRoutes:
    """The routes that list models, load, fetch and remove them.

    A key sees only the models that it is for; the whole state is for admins.
    """

    state: BalancerState
    clients: Admission
    orders: OrderRoutes
    groups: GroupRoutes
    events: LifecycleEvents

    def routes(self) -> Iterable[web.RouteDef]:
        """Return the routes."""
        yield web.get("/v1/models", self.models)
        yield web.get("/models", self.models)
        yield web.get("/v1/models/{name}", self.model)
        admins, own = self.clients.admin, "/edgeserve/v1"
        yield web.get(f"{own}/models", guarded(admins, self.whole))
        events = event_stream(self.events, self.clients)
        yield web.get(f"{own}/events", guarded(admins, events))
        yield from self.orders.routes()
        yield from self.groups.routes()
        nodes = self.orders.nodes
        yield from removal_routes(self.state, nodes, self.clients.manager)
        yield from PullRoutes(self.state, nodes, self.clients).routes()

    async def models(self, request: web.Request) -> web.Response:
        """List each model that can be called, loaded or not.

        A variant is listed by itself only for a key that is not for its model. Another
        balancer gets those that lead not back to it, with the balancers on the way.
        """
        visible = self.visible(self.clients.check(request.headers))
        data = [
            shown
            for shown in visible.values()
            if shown.get("variant_of") not in visible
        ]
        if (asker := request.headers.get(BALANCER_HEADER)) is not None:
            data = [*self._not_through(asker, data)]
        return json_response({"object": "list", "data": data})

    def _not_through(self, asker: str, data: Iterable[Json]) -> Iterator[Json]:
        known = ways_around(self.state.current.candidates, asker)
        own = self.orders.nodes.id
        for shown in data:
            names = shown.get("route", (shown["id"],))
            if ways := [known[each] for each in names if each in known]:
                yield shown | {BEHIND: [own, *min(ways, key=len)]}

    async def model(self, request: web.Request) -> web.Response:
        """Show one model, or one variant, by its name or its file's."""
        client = self.clients.check(request.headers)
        return json_response(self.found(client, request.match_info["name"])[1])

    def visible(self, client: ClientKey) -> dict[str, Json]:
        """Return what a key is for: models, variants and routes, by name."""
        return {k: v for k, v in self._known().items() if client.allows(k)}

    def found(self, client: ClientKey, name: str) -> tuple[str, Json]:
        """Return one of them, and its name. Raises UnknownModel."""
        key, found = normal(name), self._known()
        if key not in found:  # a file's name, perhaps
            engines = (e for e in self.state.current.candidates if e.serves(key))
            key = next((e.listed[1] for e in engines), key)
        if key not in found or not client.allows(key):
            raise UnknownModel(name, [each for each in found if client.allows(each)])
        return key, found[key]

    def _known(self) -> dict[str, Json]:
        """Return every model, variant and route that can be called, by name."""
        listing = entries(catalog(self.state.current.candidates))
        found = {each.name: _shown(each) for each in listing}
        return found | listed(self.state.routes.by_name.values(), found)

    async def whole(self, _: web.Request) -> web.Response:
        """Show each model with its limits, its engines and what is not as desired."""
        return json_response(
            overview(
                self.state.current.fleet,
                self.state.current.candidates,
                self.orders.limits.all(),
            )
        )


def _shown(each: CatalogEntry) -> Json:
    """Render a model, or a variant by itself."""
    shown: Json = {
        "id": each.name,
        "object": "model",
        "created": each.created,
        "owned_by": "edgeserve",
        **_state(each),
    }
    if each.variants:
        return shown | {"variants": list(map(_variant, each.variants))}
    model = each.name.partition(":")[0]
    return shown | {"memory": each.memory, "variant_of": model}


def _variant(each: CatalogEntry) -> Json:
    return {"name": each.name, **_state(each), "memory": each.memory}


def _state(each: CatalogEntry) -> Json:
    load = {} if each.progress is None else {"progress": round(each.progress, 3)}
    return {
        "state": each.state,
        **load,
        "nodes": each.nodes,
        "loading": each.loading,
        "on_demand": each.on_demand,
        "abilities": each.abilities,
        "context": each.context,
        "slots": each.slots,
    }
