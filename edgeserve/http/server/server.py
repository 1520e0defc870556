"""HTTP server: listens on one port, for inference routes and for aiohttp's."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager

from aiohttp import web

from edgeserve.http.server.aiohttp_runner import page_server
from edgeserve.http.server.context import Admit
from edgeserve.http.server.cors import Cors, with_cors
from edgeserve.http.server.limits import Limits
from edgeserve.http.server.port import Port
from edgeserve.http.sockets import BACKLOG
from edgeserve.http.types import Handler


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
    cors: Cors | None = None,
    stop_seconds: float = 1.0,
    tls: ssl.SSLContext | None = None,
    leave: Handoff | None = None,
) -> AsyncGenerator[int]:
    """Serve on `sock`, which is closed at the end; yields its port.

    Requests whose path is `handled` go to `handler`, every other one to `routes`.
    `body_limit` is in bytes. Each EdgeserveError becomes its own answer. A body that is
    still to come is read only where `admit` accepts the header fields. `cors` says
    which web pages may send requests.
    At the end, running answers have `stop_seconds` to finish. `leave` lets another
    process take over the port before that.
    """
    loop = asyncio.get_running_loop()
    if cors is not None:
        handler = with_cors(handler, cors)
    async with page_server(routes, limits, cors) as pages:
        port = Port(handler, handled, admit, body_limit, limits, pages)
        server = await loop.create_server(
            port.connection,
            sock=sock,
            backlog=min(BACKLOG, port.backlog),
            ssl=tls,
            ssl_handshake_timeout=limits.head_seconds if tls else None,
        )
        if leave is not None:
            leave.begin = lambda: port.leave(server, leave.left)
        try:
            yield sock.getsockname()[1]
        finally:
            server.close()
            await port.stop(stop_seconds)
            sock.close()
