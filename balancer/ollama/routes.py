"""Ollama's routes that reach no engine: version, lists, one model, and changes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from balancer.api.models.listing import ModelRoutes
from balancer.ollama.changes import ModelNamed, OllamaChanges
from balancer.ollama.listing import loaded, model_card, tags
from balancer.ollama.names import resolved
from edgeserve.http.server.aiohttp_routes import AioHandler, guarded, json_response
from edgeserve.wire import decode

VERSION = "0.13.0"
"""The version of Ollama whose API this is; clients ask whether it is new enough."""

ALIVE = "Ollama is running"
"""What Ollama answers on `/`, by which some clients find it."""


@dataclass(frozen=True, kw_only=True)
class OllamaRoutes:
    """The routes; each shows a client what its key is for.

    Beside them, `root` is what Ollama answers on `/`.
    """

    models: ModelRoutes

    @property
    def root(self) -> AioHandler:
        """The handler that says that this speaks Ollama's API."""
        return guarded(self.models.clients.check, self.alive)

    def routes(self) -> Iterable[web.RouteDef]:
        """Return the routes."""
        check = self.models.clients.check
        yield web.get("/api/version", guarded(check, self.version))
        yield web.get("/api/tags", self.tags)
        yield web.get("/api/ps", self.running)
        yield web.post("/api/show", self.show)
        yield from OllamaChanges(models=self.models).routes()

    async def alive(self, _: web.Request) -> web.Response:
        """Say that this speaks Ollama's API."""
        return web.Response(text=ALIVE)

    async def version(self, _: web.Request) -> web.Response:
        """Show the version of the API."""
        return json_response({"version": VERSION})

    async def tags(self, request: web.Request) -> web.Response:
        """List the models."""
        return json_response({"models": tags(self._visible(request))})

    async def running(self, request: web.Request) -> web.Response:
        """List the loaded models."""
        visible = self._visible(request)
        return json_response(
            {"models": loaded(self.models.state.current.candidates, visible)}
        )

    async def show(self, request: web.Request) -> web.Response:
        """Show one model."""
        wanted = decode(await request.read(), ModelNamed).wanted
        client = self.models.clients.check(request.headers)
        state = self.models.state
        name = resolved(wanted, state.current.candidates, state.routes.by_name)
        return json_response(model_card(*self.models.found(client, name)))

    def _visible(self, request: web.Request) -> dict[str, dict[str, Any]]:
        return self.models.visible(self.models.clients.check(request.headers))
