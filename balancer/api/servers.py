"""Routes of servers: list servers of other programs, add and remove them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from balancer.clients.admission import Admission
from balancer.fleet.members import Node
from balancer.servers.registry import ServerRegistry
from balancer.servers.server import Server
from balancer.servers.table import server_in
from balancer.state import BalancerState
from edgeserve.config.servers import WrongServer
from edgeserve.errors import BadRequest
from edgeserve.http.server.aiohttp_routes import guarded, json_response
from edgeserve.openai import fields
from edgeserve.wire import EngineReport

PATH = "/edgeserve/v1/servers"

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ServerRoutes:
    """The HTTP routes for servers. Admins see them; an admin key changes them.

    No answer has a server's key.
    """

    state: BalancerState
    servers: ServerRegistry
    clients: Admission

    def routes(self) -> Iterable[web.RouteDef]:
        """Return the routes."""
        yield web.get(PATH, guarded(self.clients.admin, self.all))
        yield web.post(PATH, guarded(self.clients.manager, self.add))
        one = f"{PATH}/{{name}}"
        yield web.delete(one, guarded(self.clients.manager, self.remove))

    async def all(self, _: web.Request) -> web.Response:
        """List all servers."""
        return json_response(list(map(self._shown, self.servers.all)))

    async def add(self, request: web.Request) -> web.Response:
        """Add a server, once it has answered; show what was found out."""
        body = fields(await request.read())
        try:
            server = server_in(body)
        except WrongServer as error:
            raise BadRequest(f"this server cannot be added: {error}") from error
        await self.servers.add(server)
        return json_response(self._shown(server))

    async def remove(self, request: web.Request) -> web.Response:
        """Remove a server that was added; requests that it answers go on."""
        server = await self.servers.remove(request.match_info["name"])
        return json_response({"name": server.name, "url": server.setting.url})

    def _shown(self, server: Server) -> Json:
        fleet, setting = self.state.current.fleet, server.setting
        address, node = fleet.addresses.get(setting.url), fleet.node(server.id)
        engines = node.report.engines if node else ()
        return {
            "id": server.id,
            "name": node.name if node else server.name,
            "url": setting.url,
            "kind": node.report.version if node else setting.kind,
            "state": node.state if node else address.state if address else "seen",
            "problem": address.problem if address else None,
            "models": [_model(each) for each in engines],
            "width": max((each.slots for each in engines), default=0),
            "running": self._running(node) if node else 0,
            "assumed": node.report.problems if node else (),
            "key": bool(server.key),
            "last_resort": setting.last_resort,
            "from": self._origin(server),
        }

    def _origin(self, server: Server) -> str:
        if server.upstream:
            return "adopted"
        return "settings" if server in self.servers.table.fixed else "added"

    def _running(self, node: Node) -> int:
        """Count its requests: what it tells, and at least ours."""
        counts = self.state.slot_counts
        ours = sum(counts.of((node.id, e.id)).ours for e in node.report.engines)
        return max(ours, *(each.busy for each in node.report.engines), 0)


def _model(engine: EngineReport) -> Json:
    return {
        "id": engine.id,
        "model": engine.model,
        "context": engine.context,
        "abilities": engine.abilities,
    }
