"""Machines that ask to join, in this process, and a middle that passes messages on."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass

from balancer.discovery.joining import JoinRequests, joining
from edgeserve.runtime.background import background
from edgeserve.security.certificates import (
    Certificate,
    fleet_context,
    new_certificate,
    server_context,
)
from edgeserve.security.join import NodeJoin
from edgeserve.security.registration import JoinRequest
from node.discovery.joining import Joining
from tests.fakes.tokens import TOKEN, GivenTokens
from tests.patience import PATIENCE

HERE = "127.0.0.1"


class KnownTokens(GivenTokens):
    """Holds a token that can be given away."""

    def newest(self) -> str:
        return TOKEN


@dataclass
class Joiner:
    """A machine that waits to be met."""

    certificate: Certificate
    port: int
    result: asyncio.Future[str]
    exchange: NodeJoin
    codes: asyncio.Queue[str]

    async def code(self) -> str:
        async with asyncio.timeout(PATIENCE):
            return await self.codes.get()

    def request(self, name: str = "pi", **changes: object) -> JoinRequest:
        fields: dict[str, object] = {
            "port": self.port,
            "name": name,
            "id": self.certificate.id,
            "knock": self.exchange.knock.hex(),
        }
        return JoinRequest(**{**fields, **changes})  # type: ignore[arg-type]

    async def token(self) -> str:
        async with asyncio.timeout(PATIENCE):
            return await self.result


@asynccontextmanager
async def a_joiner() -> AsyncGenerator[Joiner]:
    certificate = new_certificate("a node")
    loop = asyncio.get_running_loop()
    codes: asyncio.Queue[str] = asyncio.Queue()
    result: asyncio.Future[str] = loop.create_future()
    result.add_done_callback(lambda done: done.cancelled() or done.exception())
    exchange = NodeJoin(certificate.fingerprint)
    context = server_context(certificate)
    async with background() as tasks:
        attempt = Joining(exchange, codes.put_nowait, result, tasks)
        server = await loop.create_server(attempt.connection, HERE, 0, ssl=context)
        async with server:
            port = server.sockets[0].getsockname()[1]
            yield Joiner(certificate, port, result, exchange, codes)


@asynccontextmanager
async def a_balancer(
    *, allowed: bool = True, fleet: bool = True, revoked: Collection[str] = ()
) -> AsyncGenerator[JoinRequests]:
    tokens = KnownTokens(*([TOKEN] if fleet else []))
    said: list[str] = []
    async with joining(
        tokens, lambda: revoked, allowed=allowed, say=said.append
    ) as requests:
        yield requests


@asynccontextmanager
async def in_the_middle(port: int) -> AsyncGenerator[tuple[Certificate, int]]:
    """Pass everything on in both directions, under a certificate of its own."""
    own = new_certificate("in the middle")
    tasks: set[asyncio.Task[None]] = set()

    async def passed(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await reader.read(4096):
                writer.write(data)
        except (OSError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, out = await asyncio.open_connection(
            HERE, port, ssl=fleet_context(), server_hostname="edgeserve"
        )
        for pair in ((reader, out), (inner, writer)):
            tasks.add(asyncio.ensure_future(passed(*pair)))

    server = await asyncio.start_server(met, HERE, 0, ssl=server_context(own))
    async with server:
        yield own, server.sockets[0].getsockname()[1]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
