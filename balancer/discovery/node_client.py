"""Node client: every request that the balancer sends to a node.

Each names the engine that it is for. Where there is a fleet token, `upstream` sends
nothing before both sides have proved that they hold it.
"""

from __future__ import annotations

import secrets
from contextlib import AbstractAsyncContextManager
from typing import Protocol
from urllib.parse import urlencode

from balancer.discovery.loops import passed_on
from balancer.fleet.engines import EngineCandidate
from edgeserve.errors import NodeLost
from edgeserve.http.types import Answer, Origin, Request, Upstream
from edgeserve.orders.log import LOG
from edgeserve.served import Continued
from edgeserve.wire import BALANCER_HEADER, CHANGES, REQUEST_HEADER, VARIANT_HEADER

EVENTS = f"/edgeserve/v1/events?{CHANGES}"

JSON = {"content-type": "application/json"}

PROBE_ID = "probe"
"""The request id of all probes."""

NOT_FOR_NODES = frozenset(
    ("authorization", "x-api-key", "cookie", "origin", "accept-encoding",
     "content-encoding", "x-conversation-id", VARIANT_HEADER, REQUEST_HEADER,
     BALANCER_HEADER)
)  # fmt: skip
"""A conversation id would let llama.cpp continue after the client has left."""


class ServerRequests(Protocol):
    """Sends requests to servers that are no nodes; see `ServerClient`."""

    id: str
    """This balancer's."""

    def is_at(self, origin: Origin) -> bool:
        """Whether such a server is at an address."""
        ...

    def probe(
        self, to: EngineCandidate, path: str, body: bytes
    ) -> AbstractAsyncContextManager[Answer]:
        """See `NodeClient.probe`."""
        ...

    def forward(
        self,
        to: EngineCandidate,
        request: Request,
        request_id: str,
        body: bytes,
        passed: str,
    ) -> AbstractAsyncContextManager[Answer]:
        """See `NodeClient.forward`; `passed`: the balancers on its way."""
        ...

    def shown(self, to: EngineCandidate, way: Continued, *, goes_on: bool) -> None:
        """Note whether a server goes on with an answer that broke off."""
        ...


class NodeClient:
    """Sends requests to nodes. Leaving a block early closes the connection.

    `servers` sends those for servers that are no nodes.
    """

    def __init__(
        self, upstream: Upstream, servers: ServerRequests | None = None
    ) -> None:
        self._upstream = upstream
        self._servers = servers
        self.id = servers.id if servers else secrets.token_hex(8)
        """By which nodes tell this balancer from others, and it sees loops."""

    def events(self, origin: Origin) -> AbstractAsyncContextManager[Answer]:
        """Open the event stream of the node at `origin`."""
        return self._upstream.ask(origin, "GET", EVENTS, {})

    def order(
        self, origin: Origin, path: str, body: bytes
    ) -> AbstractAsyncContextManager[Answer]:
        """Ask the node at `origin` to do something; see `edgeserve.orders`.

        Raises NodeLost where no node is there.
        """
        if self._servers is not None and self._servers.is_at(origin):
            raise NodeLost(
                f"{origin.url} is a server of another program, not a node: it takes no"
                " orders; change its models there"
            )
        return self._upstream.ask(origin, "POST", path, JSON, body)

    def log(self, origin: Origin, after: str) -> AbstractAsyncContextManager[Answer]:
        """Ask the node at `origin` for its log lines; see `edgeserve.orders.log`."""
        target = f"{LOG}?{urlencode({'after': after})}"
        return self._upstream.ask(origin, "GET", target, {})

    def withdraw(
        self, origin: Origin, path: str
    ) -> AbstractAsyncContextManager[Answer]:
        """Ask the node at `origin` to stop what it was asked to do."""
        return self._upstream.ask(origin, "DELETE", path, {})

    def probe(
        self, to: EngineCandidate, path: str, body: bytes
    ) -> AbstractAsyncContextManager[Answer]:
        """Send an engine a small request of our own."""
        if self._servers is not None and to.engine.kind == "server":
            return self._servers.probe(to, path, body)
        return self._upstream.ask(
            to.origin, "POST", path, self._headers(to, PROBE_ID), body
        )

    def shown(self, to: EngineCandidate, way: Continued, *, goes_on: bool) -> None:
        """Note whether a server goes on with an answer that broke off."""
        if self._servers is not None:
            self._servers.shown(to, way, goes_on=goes_on)

    def forward(
        self, to: EngineCandidate, request: Request, request_id: str, body: bytes
    ) -> AbstractAsyncContextManager[Answer]:
        """Send an engine a client's request, with this body, without its secrets."""
        if self._servers is not None and to.engine.kind == "server":
            passed = passed_on(request.headers.get(BALANCER_HEADER, ""), self.id)
            return self._servers.forward(to, request, request_id, body, passed)
        headers = {k: v for k, v in request.headers.items() if k not in NOT_FOR_NODES}
        headers |= self._headers(to, request_id)
        return self._upstream.ask(
            to.origin, request.method, request.target, headers, body
        )

    def _headers(self, to: EngineCandidate, request_id: str) -> dict[str, str]:
        return {
            **JSON,
            VARIANT_HEADER: to.engine.id,
            REQUEST_HEADER: request_id,
            BALANCER_HEADER: self.id,
        }
