"""HTTP server: listens on one port, for inference routes and for aiohttp's."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial

from aiohttp import web

from edgeserve.http.server.acceptor import accepting
from edgeserve.http.server.aiohttp_runner import page_server
from edgeserve.http.server.context import Admit
from edgeserve.http.server.cors import Cors, with_cors
from edgeserve.http.server.limits import Limits
from edgeserve.http.server.port import Port
from edgeserve.http.sockets import BACKLOG
from edgeserve.http.types import Handler

Greeting = Callable[[Callable[[], asyncio.Protocol]], asyncio.Protocol]
"""Makes the protocol of a new connection; it gets what makes the one for HTTP."""


OLDER = (
    "a balancer that speaks plain HTTP is of an older release: install the same"
    " edgeserve on both, and replace the fleet token, which it sends readable"
)
"""What a plain request is told where a greeting is expected."""


class Handoff:
    """Leaves a port to another process: given to `listen`, started by `begin`.

    After `begin` no connection is accepted. Open ones are served, and end with their
    next answer; `left` is set once none is open.
    """

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.begin: Callable[[], None] = lambda: None


DEFAULT_LIMITS = Limits()


def anyone(headers: Mapping[str, str]) -> None:
    """Accept the body of every request."""
    del headers


@asynccontextmanager
async def listen(
    sock: socket.socket,
    handler: Handler,
    handled: Callable[[str], bool],
    routes: Iterable[web.AbstractRouteDef],
    *,
    body_limit: int,
    limits: Limits = DEFAULT_LIMITS,
    admit: Admit = anyone,
    check_host: Admit = anyone,
    cors: Cors | None = None,
    stop_seconds: float = 1.0,
    tls: Callable[[], ssl.SSLContext] | None = None,
    greeting: Greeting | None = None,
    leave: Handoff | None = None,
) -> AsyncGenerator[int]:
    """Serve on `sock`, which is closed at the end; yields its port.

    Requests whose path is `handled` go to `handler`, every other one to `routes`.
    `body_limit` is in bytes. Each EdgeserveError becomes its own answer. A body that is
    still to come is read only where `admit` accepts the header fields; every request is
    refused where `check_host` does not accept them. `cors` says
    which web pages may send requests.
    With `tls`, all connections are encrypted; it is asked anew for the context of each.
    `greeting` wraps the protocol of each connection, to speak before HTTP does.
    At the end, running answers have `stop_seconds` to finish. `leave` lets another
    process take over the port before that.
    """
    if cors is not None:
        handler = with_cors(handler, cors)
    async with page_server(routes, limits, cors) as pages:
        port = Port(handler, handled, admit, body_limit, limits, pages, check_host)
        async with _accepting(sock, port, tls, greeting) as close:
            if leave is not None:
                leave.begin = lambda: port.leave(close, leave.left)
            try:
                yield sock.getsockname()[1]
            finally:
                close()
                await port.stop(stop_seconds)
                sock.close()


@asynccontextmanager
async def _accepting(
    sock: socket.socket,
    port: Port,
    tls: Callable[[], ssl.SSLContext] | None,
    greeting: Greeting | None,
) -> AsyncGenerator[Callable[[], None]]:
    """Accept connections; yields what stops that before the block ends."""
    made = partial(greeting, port.connection) if greeting else port.connection
    backlog = min(BACKLOG, port.backlog)
    if tls is None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(made, sock=sock, backlog=backlog)
        yield server.close
        return
    sock.listen(backlog)
    async with accepting(
        sock, made, tls, port.limits, OLDER if greeting else ""
    ) as acceptor:
        port.arriving = lambda: acceptor.arriving
        acceptor.on_settled = port.settled
        yield acceptor.close
