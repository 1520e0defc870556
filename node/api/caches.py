"""Routes of caches: save what a slot holds, take a state, and tell which are here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from aiohttp import web

from edgeserve.errors import in_words
from edgeserve.http.server.aiohttp_routes import guarded, json_response
from edgeserve.orders.caches import CACHES, SAVE, TAKE, SaveSlot, TakeState
from edgeserve.security.tokens import Guard
from edgeserve.wire import decode
from node.caches.errors import NoRoom, NoSuchState
from node.caches.slots import SlotCaches


@dataclass(frozen=True)
class CacheRoutes:
    """The routes; all require the fleet token."""

    caches: SlotCaches
    guard: Guard

    def routes(self) -> Iterable[web.RouteDef]:
        """Return the routes."""
        check = self.guard.check
        return [
            web.get(CACHES, guarded(check, self.states)),
            web.get(f"{CACHES}/{{id}}", guarded(check, self.state)),
            web.post(SAVE, guarded(check, self.save)),
            web.post(TAKE, guarded(check, self.take)),
        ]

    async def states(self, _: web.Request) -> web.Response:
        """List the saved states."""
        return json_response(self.caches.store.all)

    async def state(self, request: web.Request) -> web.Response:
        """Describe one state."""
        found = self.caches.store.find(request.match_info["id"])
        if found is None:
            raise NoSuchState("this node does not keep that state")
        return json_response(found)

    async def save(self, request: web.Request) -> web.Response:
        """Save what a slot holds."""
        order = decode(await request.read(), SaveSlot)
        try:
            return json_response(await self.caches.save(order))
        except OSError as error:
            raise NoRoom(f"cannot save the state: {in_words(error)}") from error

    async def take(self, request: web.Request) -> web.Response:
        """Have a state, and put it into a slot if one is named."""
        order = decode(await request.read(), TakeState)
        try:
            return json_response(await self.caches.take(order))
        except OSError as error:
            raise NoRoom(f"cannot take the state: {in_words(error)}") from error
