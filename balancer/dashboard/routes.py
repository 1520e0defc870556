"""Routes of the dashboard: its files, its live stream, its key on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from balancer.api.admin import AdminRoutes
from balancer.api.keys import key_routes
from balancer.clients.admission import Admission
from balancer.dashboard import files
from balancer.dashboard.live import LiveStream
from balancer.dashboard.own_key import OwnKey
from balancer.failover.watchdog import Watchdog
from edgeserve.http.server.aiohttp_routes import AioHandler, guarded

OWN = "/edgeserve/v1"


@dataclass(frozen=True, kw_only=True)
class DashboardRoutes:
    """The routes. `root` answers programs at `/`, which only browsers see as a page."""

    clients: Admission
    live: LiveStream
    own_key: OwnKey
    root: AioHandler

    def routes(self) -> Iterable[web.RouteDef]:
        """Return the routes."""
        yield web.get("/", self.page_or_root)
        yield web.get(files.PATH, files.file)
        yield web.post(f"{OWN}/dashboard/key", self.own_key.give)
        yield web.get(f"{OWN}/live", guarded(self.clients.admin, self.live.follow))
        yield from key_routes(self.clients)

    async def page_or_root(self, request: web.Request) -> web.StreamResponse:
        """Send the page to a browser, and to a program what it expects."""
        if files.wants_page(request.headers):
            return await files.page(request)
        return await self.root(request)


def dashboard_routes(
    api: AdminRoutes,
    root: AioHandler,
    watchdog: Watchdog,
    key_file: Path,
    taken: asyncio.Event,
) -> Iterable[web.RouteDef]:
    """Return the routes of the dashboard, which shares `/` with what programs expect.

    `root` answers those, see `OllamaRoutes.root`. `key_file` has the key that the
    balancer leaves for its own account; `taken` is set once another process takes over.
    """
    return DashboardRoutes(
        clients=api.clients,
        live=LiveStream(
            state=api.state,
            nodes=api.nodes,
            models=api.models,
            attempts=watchdog.attempts,
            clients=api.clients,
            taken=taken,
        ),
        own_key=OwnKey(key_file, api.clients),
        root=root,
    ).routes()
