"""Own key: give the page an admin key where it is opened by the balancer's account.

Commands of that account read this key from a file. While clients need no key, a page
that this balancer has sent, in a browser of the same account on the same machine, gets
it as well, so that the first minute needs no key. All else has to be told one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from balancer.clients.admission import Admission, key_left_in
from balancer.clients.keys import AdminOnly
from edgeserve.http.server.aiohttp_routes import json_response
from edgeserve.security.account import same_account
from edgeserve.security.hosts import name_in
from edgeserve.security.tokens import is_loopback

JSON = "application/json"
PROXIED = frozenset(("forwarded", "x-forwarded-for", "x-real-ip", "via"))
"""Fields of a request that comes from elsewhere through a proxy on this machine."""


@dataclass(frozen=True)
class OwnKey:
    """The route that gives the key in `file`."""

    file: Path
    clients: Admission

    async def give(self, request: web.Request) -> web.Response:
        """Give the key, or refuse."""
        if self.clients.keyed or not (is_own_page(request) and _same_account(request)):
            raise AdminOnly
        key = key_left_in(self.file)
        if key is None:
            raise AdminOnly
        return json_response({"key": key})


def is_own_page(request: web.Request) -> bool:
    """Whether a page that was loaded from this machine by a local name asks.

    Browsers send `Origin` with every POST, and let no page choose it.
    """
    host = request.headers.get("host", "")
    origin = request.headers.get("origin", "")
    return (
        is_loopback(name_in(host))
        and origin in {f"http://{host}", f"https://{host}"}
        and request.headers.get("sec-fetch-site", "same-origin") == "same-origin"
        and request.content_type == JSON
        and PROXIED.isdisjoint(name.lower() for name in request.headers)
    )


def _same_account(request: web.Request) -> bool:
    transport = request.transport
    if transport is None:
        return False
    peer, own = (transport.get_extra_info(each) for each in ("peername", "sockname"))
    return bool(peer and own) and same_account(peer[:2], own[:2])
