"""Routes of routes: list virtual models, set and remove them while it runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from balancer.clients.admission import Admission
from balancer.composition.table import RouteTable, UnknownModelRoute
from edgeserve.config.routes import ModelRoute, WrongRoute, route_from
from edgeserve.errors import BadRequest
from edgeserve.http.server.aiohttp_routes import guarded, json_response
from edgeserve.openai import fields, normal

PATH = "/edgeserve/v1/routes"

Json = dict[str, Any]


@dataclass(frozen=True)
class ModelRouteRoutes:
    """The HTTP routes for model routes. Admins see them; an admin key changes them."""

    table: RouteTable
    clients: Admission

    def routes(self) -> Iterable[web.RouteDef]:
        """Return the routes."""
        one = f"{PATH}/{{name}}"
        yield web.get(PATH, guarded(self.clients.admin, self.all))
        yield web.get(one, guarded(self.clients.admin, self.one))
        yield web.put(one, guarded(self.clients.manager, self.put))
        yield web.delete(one, guarded(self.clients.manager, self.remove))

    async def all(self, _: web.Request) -> web.Response:
        """List all routes."""
        return json_response(list(map(self._shown, self.table.by_name.values())))

    async def one(self, request: web.Request) -> web.Response:
        """Show one route."""
        name = request.match_info["name"]
        route = self.table.by_name.get(normal(name))
        if route is None:
            raise UnknownModelRoute(name, self.table.by_name)
        return json_response(self._shown(route))

    async def put(self, request: web.Request) -> web.Response:
        """Set a route, from the next request on."""
        body = fields(await request.read())
        name = request.match_info["name"]
        try:
            route = route_from({**body, "name": name})
        except WrongRoute as error:
            raise BadRequest(f"route {name!r}: {error}") from error
        if (
            isinstance(said := body.get("name", name), str)
            and normal(said) == route.name
        ):
            await self.table.put(route)
            return json_response(self._shown(route))
        raise BadRequest(f"the path names route {name!r}, and the body {said!r}")

    async def remove(self, request: web.Request) -> web.Response:
        """Remove a route; requests that it has begun go on."""
        name = normal(request.match_info["name"])
        await self.table.remove(name)
        return json_response({"name": name})

    def _shown(self, route: ModelRoute) -> Json:
        place = "file" if self.table.of_file(route) else "set"
        return {**route.shown(), "from": place}
