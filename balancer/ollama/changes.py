"""Ollama's routes that change something: pull, copy and delete, for admins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from balancer.api.models.listing import ModelRoutes
from balancer.api.pulls import PullRoutes
from balancer.api.removal import ModelRemover, RemoveFrom
from balancer.clients.keys import OWNER
from balancer.fleet.members import Node
from balancer.ollama.names import resolved
from balancer.ollama.pulls import (
    STARTING,
    SUCCESS,
    PullFailed,
    progress,
    pull_on,
    pulled_model,
    roomiest,
    source_of,
)
from balancer.ollama.requests import named
from edgeserve.config.routes import ModelRoute, WrongRoute, route_from
from edgeserve.errors import BadRequest, EdgeserveError, UnknownModel
from edgeserve.http.server.aiohttp_routes import guarded, json_response
from edgeserve.openai import normal
from edgeserve.orders.pulls import FleetPull, PullReport
from edgeserve.wire import decode, encode

Json = dict[str, Any]

BEAT_SECONDS = 10.0
"""How often a line is sent while nothing changes, so that a lost client is noticed."""

HEADERS = {"content-type": "application/x-ndjson", "cache-control": "no-store"}


class ModelNamed(msgspec.Struct, kw_only=True):
    """Body: a model's name, in the field of today or in the older one."""

    model: str = ""
    name: str = ""
    stream: bool | None = None

    @property
    def wanted(self) -> str:
        """The name. Raises BadRequest where there is none."""
        return named(self.model or self.name)


class CopyNamed(msgspec.Struct, kw_only=True):
    """Body of a copy."""

    source: str = ""
    destination: str = ""


@dataclass(frozen=True, kw_only=True)
class OllamaChanges:
    """The routes. A copy is a route with one model: nothing is copied."""

    models: ModelRoutes

    def routes(self) -> Iterable[web.RouteDef]:
        """Return the routes."""
        manages = self.models.clients.manager
        yield web.post("/api/pull", guarded(manages, self.pull))
        yield web.post("/api/copy", guarded(manages, self.copy))
        yield web.delete("/api/delete", guarded(manages, self.delete))

    async def copy(self, request: web.Request) -> web.Response:
        """Give a model another name."""
        order = decode(await request.read(), CopyNamed)
        state, table = self.models.state, self.models.state.routes
        wanted = resolved(named(order.source), state.current.candidates, table.by_name)
        source, _ = self.models.found(OWNER, wanted)
        name = normal(named(order.destination))
        if name not in table.by_name and self._is_model(name):
            raise BadRequest(f"there is a model {name!r}; take another name")
        known = table.by_name.get(source)
        if known is not None:
            await table.put(msgspec.structs.replace(known, name=name))
        else:
            await table.put(_alias(name, source))
        return web.Response()

    async def delete(self, request: web.Request) -> web.Response:
        """Remove another name, or a model's files from every node."""
        wanted = normal(decode(await request.read(), ModelNamed).wanted)
        if wanted in self.models.state.routes.by_name:
            await self.models.state.routes.remove(wanted)
            return web.Response()
        remover = ModelRemover(state=self.models.state, nodes=self.models.orders.nodes)
        await remover.removed(wanted, RemoveFrom())
        return web.Response()

    async def pull(self, request: web.Request) -> web.StreamResponse:
        """Have the node with most memory fetch a model, and say how far it is.

        It goes on where the client leaves. A model that is here is not fetched.
        """
        order = decode(await request.read(), ModelNamed)
        lines = self._pulled(order.wanted)
        if order.stream is not False:
            return await _streamed(request, lines)
        async with aclosing(lines):
            async for _ in lines:
                pass
        return json_response(SUCCESS)

    async def _pulled(self, name: str) -> AsyncGenerator[Json]:
        """Yield the lines of a pull. Raises EdgeserveError where it fails."""
        yield STARTING
        state = self.models.state
        here = resolved(name, state.current.candidates, state.routes.by_name)
        if not self._is_model(here):
            async for line in self._fetched(source_of(name), normal(name)):
                yield line
        yield SUCCESS

    async def _fetched(self, source: str, name: str) -> AsyncGenerator[Json]:
        models = self.models
        pulls = PullRoutes(models.state, models.orders.nodes, models.clients)
        best = roomiest(models.state.current.fleet)
        order = FleetPull(source=source, nodes=(best.id,))
        ((node, pull, problem),) = await pulls.begin(order)
        if pull is None:
            raise PullFailed(f"{node.name}: {problem}")
        last: Json = {}
        while not pull.over:
            pull = await self._further(node, pull, last)
            last = progress(pull)
            yield last
        if "/" in name:  # the name of a repository, by which it is called next
            with suppress(EdgeserveError):
                await models.state.routes.put(_alias(name, pulled_model(pull)))

    async def _further(self, node: Node, pull: PullReport, last: Json) -> PullReport:
        """Return the pull once it is further than `last`, or as it is after a while."""
        current = self.models.state.current
        while True:
            pull = pull_on(node, pull, current.fleet)
            if pull.over or progress(pull) != last:
                return pull
            try:
                async with asyncio.timeout(BEAT_SECONDS):
                    await current.changed()
            except TimeoutError:
                return pull

    def _is_model(self, name: str) -> bool:
        try:
            self.models.found(OWNER, name)
        except UnknownModel:
            return False
        return True


def _alias(name: str, model: str) -> ModelRoute:
    try:
        return route_from({"name": name, "models": [model]})
    except WrongRoute as error:
        raise BadRequest(f"{name!r}: {error}") from error


async def _streamed(
    request: web.Request, lines: AsyncGenerator[Json]
) -> web.StreamResponse:
    """Send the lines; a failure is the last one."""
    response = web.StreamResponse(headers=HEADERS)
    await response.prepare(request)
    try:
        async with aclosing(lines):
            async for line in lines:
                await response.write(encode(line) + b"\n")
    except EdgeserveError as error:
        await response.write(encode({"error": str(error)}) + b"\n")
    return response
