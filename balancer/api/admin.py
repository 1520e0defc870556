"""Admin routes: requests, usage, health, metrics, registration; all other routes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import web

from balancer.api.models.listing import ModelRoutes
from balancer.api.nodes import FOREIGN_PAGES, NodeRoutes
from balancer.api.routes import ModelRouteRoutes
from balancer.api.servers import ServerRoutes
from balancer.clients.admission import Admission
from balancer.clients.store import Spent
from balancer.clients.usage import ClientUsage
from balancer.discovery.registration import Registrations
from balancer.lifecycle.events import LifecycleEvent
from balancer.servers.registry import ServerRegistry
from balancer.state import BalancerState
from balancer.telemetry.records import RequestRecord
from edgeserve.errors import BadRequest, EdgeserveError
from edgeserve.http.server.aiohttp_routes import asked_from, guarded, json_response
from edgeserve.runtime.tasks import in_thread
from edgeserve.security.registration import Challenge, Registered, Registration
from edgeserve.wire import PROTOCOL, decode

TRIED_SECONDS = 3.0
"""How long a registration waits for the first answer of its node."""

STAMPED_SECONDS = 0.1
"""An engine's load is noted so soon after the requests that it wakes."""

MOST_DAYS = 3660
"""The longest time of which usage is shown."""


class UnknownRequest(EdgeserveError):
    """No request with that id among the latest."""

    status = 404
    code = "request_not_found"
    kind = "invalid_request_error"


class NoSuchClient(EdgeserveError):
    """No key has that name."""

    status = 404
    code = "key_not_found"
    kind = "invalid_request_error"


@dataclass(frozen=True, kw_only=True)
class AdminRoutes:
    """The routes that aiohttp serves.

    `clients` guards all but /health, register, and those of `models` and `nodes`. Keys
    see their own requests and usage. The whole fleet is for admins.
    """

    state: BalancerState
    registrations: Registrations
    clients: Admission
    usage: ClientUsage
    models: ModelRoutes
    nodes: NodeRoutes
    servers: ServerRegistry

    def routes(self) -> Iterable[web.RouteDef]:
        """Return the routes."""
        own = "/edgeserve/v1"
        admins = self.clients.admin
        servers = ServerRoutes(
            state=self.state, servers=self.servers, clients=self.clients
        )
        return [
            web.get("/health", self.health),
            web.get("/v1/health", self.health),
            web.get("/metrics", guarded(admins, self.rendered_metrics)),
            web.get(f"{own}/nodes", guarded(admins, self.fleet)),
            web.get(f"{own}/requests", self.requests),
            web.get(f"{own}/requests/{{id}}", self.request),
            web.get(f"{own}/usage", self.used),
            web.get(f"{own}/register", self.challenge),
            web.post(f"{own}/register", self.registration),
            *self.models.routes(),
            *self.nodes.routes(),
            *ModelRouteRoutes(self.state.routes, self.clients).routes(),
            *servers.routes(),
        ]

    async def health(self, _: web.Request) -> web.Response:
        """Show health: 200, or 503 while draining."""
        fleet = self.state.current.fleet
        up = [node for node in fleet.nodes if node.state == "up"]
        ready = [
            each for each in self.state.current.candidates if each.unavailable is None
        ]
        draining = self.state.in_flight.draining
        summary = {
            "status": "draining" if draining else "ok",
            "nodes": len(up),
            "engines": len(ready),
        }
        return json_response(summary, status=503 if draining else 200)

    async def rendered_metrics(self, _: web.Request) -> web.Response:
        """Show the metrics, for Prometheus."""
        text = self.state.metrics.render(
            self.state.current.fleet,
            self.state.queue.waiting,
            self.state.in_flight.inside,
            self.state.model_loads(),
            self.state.predictive.energy,
        )
        return web.Response(
            body=text.encode(),
            headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def fleet(self, _: web.Request) -> web.Response:
        """Show the fleet, and nodes that were seen but have not answered."""
        return json_response(self.nodes.shown())

    async def requests(self, request: web.Request) -> web.Response:
        """List the latest requests of the key, newest first; for an admin, of all."""
        client = self.clients.check(request.headers)
        return json_response(
            [
                record.shown(fully=False)
                for record in self.state.records
                if client.admin or record.owner == client.id
            ]
        )

    async def request(self, request: web.Request) -> web.Response:
        """Explain one request: every candidate, and why it was chosen or not."""
        client = self.clients.check(request.headers)
        id_ = request.match_info["id"]
        record = self.state.records.get(id_)
        if record is None or not (client.admin or record.owner == client.id):
            raise UnknownRequest(
                f"no request {id_!r} among the latest; `edgeserve requests` lists them"
            )
        return json_response(
            record.shown(fully=True) | {"loads": self._awaited(record)}
        )

    def _awaited(self, record: RequestRecord) -> list[LifecycleEvent]:
        """Return the loads of its model that went on while it waited."""
        used = [each.send.to.engine for each in record.attempts]
        names = {name for each in used for name in (each.variant, each.model)}
        ended = record.arrived_at + record.waited + STAMPED_SECONDS
        return self.models.events.loads(
            names or {record.model}, record.arrived_at, ended
        )

    async def used(self, request: web.Request) -> web.Response:
        """Show what keys have used, by key, model and day; an admin sees all keys."""
        client = self.clients.check(request.headers)
        wanted = request.query.get("key") if client.admin else client.name
        days = request.query.get("days", "30")
        if not (
            days.isascii() and days.isdecimal() and 1 <= int(days[:6]) <= MOST_DAYS
        ):
            raise BadRequest(f"days has to be a number from 1 to {MOST_DAYS}")
        found = await in_thread(self.usage.since, int(days[:6]))
        if wanted and client.admin and wanted not in self._keys_of(found):
            there = ", ".join(sorted(self._keys_of(found))) or "none"
            raise NoSuchClient(f"there is no key {wanted!r}; there are: {there}")
        rows = [
            {
                "key": key,
                "model": model,
                "day": day,
                "requests": counts.requests,
                "prompt_tokens": counts.prompt,
                "cached_tokens": counts.cached,
                "answer_tokens": counts.answer,
            }
            for (key, model, day), counts in sorted(found.items())
            if wanted in {None, key}
        ]
        return json_response(rows)

    def _keys_of(self, used: Iterable[Spent]) -> set[str]:
        """Return the names of all keys, those that are gone and were used included."""
        return {each.name for each in self.clients.all()} | {key for key, *_ in used}

    async def challenge(self, _: web.Request) -> web.Response:
        """Begin a registration: send the nonce that its proof has to cover."""
        nonce = self.registrations.challenge()
        return json_response(Challenge(nonce=nonce, protocol=PROTOCOL))

    async def registration(self, request: web.Request) -> web.Response:
        """Register a node that proves itself, and answer whether its address works."""
        peer = asked_from(request)
        try:
            FOREIGN_PAGES.check(request.headers)
            registration = decode(await request.read(), Registration)
            proof = self.registrations.checked(registration)
            if not registration.url:
                return json_response(Registered(proof=proof))
            key = self.registrations.register(registration, peer)
        except EdgeserveError as error:
            self.registrations.warn(peer, str(error))
            raise
        return json_response(Registered(problem=await self._problem(key), proof=proof))

    async def _problem(self, key: str) -> str | None:
        """Wait a moment until a node has been tried; return what is wrong, if so."""
        current = self.state.current
        with suppress(TimeoutError):
            async with asyncio.timeout(TRIED_SECONDS):
                while (
                    address := current.fleet.addresses.get(key)
                ) and address.state == "seen":
                    await current.changed()
        address = current.fleet.addresses.get(key)
        if address is None or address.state != "unreachable":
            return None
        return f"{address.problem}; --announce-url can name another address"
