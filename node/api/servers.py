"""Server relay: passes requests of balancers on to servers that this node has adopted.

It is no proxy: only ports in the node's report, plain paths below their base, GET and
POST. A server gets its own key and, of the header fields, those that describe the body.
"""

from __future__ import annotations

import re

from edgeserve.errors import Draining, EdgeserveError, WrongMethod
from edgeserve.http.types import Answer, Handler, Request, Response, Upstream
from edgeserve.orders.servers import SERVERS
from edgeserve.security.tokens import Guard
from edgeserve.servers.asking import bearing, without_key
from node.adoption.finding import Adopted
from node.api.inference import unseen
from node.state import NodeState

RELAY = f"{SERVERS}/"
"""What the paths of servers begin with; a port follows."""

METHODS = ("GET", "POST")

PASSED = ("content-type", "accept", "x-request-id", "endpoint-load-metrics-format")
"""Header fields that a server gets."""

WHOLE_BYTES = 2**16
"""Answers of a known length up to this are sent at once."""

_TARGET = re.compile(r"(\d{1,5})((?:/[\w~:@+=.-]+)*/?)", re.ASCII)
_DOTS = re.compile(r"/\.\.?(?:/|$)")


class NoSuchServer(EdgeserveError):
    """The node has adopted no server at that port, or the path is not a plain one."""

    status = 404
    code = "server_not_found"


class ServerRelay:
    """Answers for adopted servers, and leaves all other requests to another handler."""

    def __init__(
        self, state: NodeState, upstream: Upstream, guard: Guard, otherwise: Handler
    ) -> None:
        self._state = state
        self._upstream = upstream
        self._guard = guard
        self._otherwise = otherwise

    async def __call__(self, request: Request, reply: Response) -> None:
        """Pass one request on. Cancelling it closes the server's connection at once."""
        if not request.path.startswith(RELAY):
            await self._otherwise(request, reply)
            return
        self._guard.check(request.headers)
        if request.method not in METHODS:
            raise WrongMethod(request.method, request.path, METHODS)
        adopted, path = self._meant(request.path.removeprefix(RELAY))
        if self._state.draining:
            raise Draining
        with self._state.relayed:
            async with self._upstream.ask(
                adopted.place.origin,
                request.method,
                f"{path}?{request.query}" if request.query else path,
                to_server(request, adopted.key),
                request.body if request.method == "POST" else b"",
            ) as answer:
                await _pass(answer, reply, adopted.key)

    def _meant(self, rest: str) -> tuple[Adopted, str]:
        """Return the server that a path means, and the path there."""
        found = _TARGET.fullmatch(rest)
        if found is None or _DOTS.search(rest):
            raise NoSuchServer(
                "a path of a server has letters, digits and -._~:@+= only"
            )
        port = int(found[1])
        for each in self._state.adopted:
            if each.place.origin.port == port:
                return each, each.place.base + (found[2] or "/")
        raise NoSuchServer(f"this node has adopted no server at port {port}")


def to_server(request: Request, key: str) -> dict[str, str]:
    """Return the header fields for a server. Pure."""
    given = request.headers
    return {**{name: given[name] for name in PASSED if name in given}, **bearing(key)}


async def _pass(answer: Answer, reply: Response, key: str) -> None:
    length = answer.headers.get("content-length")
    if length is not None and int(length) <= WHOLE_BYTES:
        body = await answer.read()
        if answer.status >= 400:
            body = without_key(body, key)
        await reply.send(answer.status, answer.headers, body)
        return
    await reply.start(answer.status, answer.headers)
    await answer.pump(reply, unseen)
    await reply.finish()
