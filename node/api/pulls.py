"""Routes of pulls: order them, and tell other nodes which files are here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import web

from edgeserve.errors import BadRequest
from edgeserve.http.server.aiohttp_routes import guarded, json_response
from edgeserve.orders.pulls import FILES, PULLS, PullOrder
from edgeserve.security.tokens import Guard
from edgeserve.wire import decode
from node.pulls.jobs import PullJobs
from node.pulls.shared import Library, Wanted


@dataclass(frozen=True)
class PullRoutes:
    """The routes; all require the fleet token."""

    jobs: PullJobs
    library: Library
    guard: Guard

    def routes(self) -> Iterable[web.RouteDef]:
        """Return the routes."""
        check = self.guard.check
        return [
            web.get(PULLS, guarded(check, self.pulls)),
            web.post(PULLS, guarded(check, self.order)),
            web.delete(f"{PULLS}/{{id}}", guarded(check, self.cancel)),
            web.get(FILES, guarded(check, self.files)),
        ]

    async def pulls(self, _: web.Request) -> web.Response:
        """List the pulls of this node."""
        return json_response(self.jobs.reports)

    async def order(self, request: web.Request) -> web.Response:
        """Begin a pull."""
        order = decode(await request.read(), PullOrder)
        return json_response(self.jobs.order(order), status=HTTPStatus.ACCEPTED)

    async def cancel(self, request: web.Request) -> web.Response:
        """Stop a pull; what has come is kept."""
        return json_response(self.jobs.cancel(request.match_info["id"]))

    async def files(self, request: web.Request) -> web.Response:
        """List model files, by content and size or by model if asked for."""
        size = request.query.get("size")
        if size is not None and not re.fullmatch("[0-9]{1,18}", size):
            raise BadRequest("size has to be a number of bytes")
        wanted = Wanted(
            content=request.query.get("content", ""),
            size=None if size is None else int(size),
            model=request.query.get("model", ""),
        )
        return json_response(await self.library.find(wanted))
