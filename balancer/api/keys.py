"""Routes of keys: list them for admins, without what would let a client in."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from balancer.clients.admission import Admission
from balancer.clients.keys import ClientKey
from edgeserve.http.server.aiohttp_routes import guarded, json_response

PATH = "/edgeserve/v1/keys"

Json = dict[str, Any]


def key_routes(clients: Admission) -> list[web.RouteDef]:
    """Return the routes. Commands make and change keys, so that no secret crosses."""

    async def all_keys(_: web.Request) -> web.Response:
        shown = [_shown(each) for each in clients.all()]
        return json_response({"needed": bool(clients), "keys": shown})

    return [web.get(PATH, guarded(clients.admin, all_keys))]


def _shown(key: ClientKey) -> Json:
    """Render a key without its id, which is the hash of its secret."""
    return {
        "name": key.name,
        "admin": key.admin,
        "models": key.models,
        "requests_per_minute": key.requests_per_minute,
        "tokens_per_minute": key.tokens_per_minute,
        "at_once": key.at_once,
        "priority": key.priority,
        "created": key.created or None,
        "expires": key.expires,
        "revoked": key.revoked,
    }
