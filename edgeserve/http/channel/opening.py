"""Opening side of the fleet channel: connects, and proves before HTTP begins."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from edgeserve.errors import NotProven
from edgeserve.http.channel.proved import ProvedConnections, Revoked, none_revoked
from edgeserve.http.client.connection import UpstreamConnection
from edgeserve.http.types import Origin
from edgeserve.security.certificates import (
    SERVER_NAME,
    fleet_context,
    id_of,
    peer_fingerprint,
)
from edgeserve.security.proof import REPLY, ClientProof, OtherToken, ProofError
from edgeserve.security.tokens import FleetTokens

OLDER = (
    "does not speak TLS: it runs an older edgeserve, or has no fleet token; install the"
    " same edgeserve on both and copy the token"
)
OTHER = "has another fleet token; both need the same"
UNPROVEN = "does not prove that it holds the fleet token; it gets nothing"
REVOKED = "was revoked; `edgeserve nodes allow` lets it in again"
ANOTHER = "is another machine than the node with that id: its certificate differs"


class FleetChannel:
    """Opens connections to processes that prove to hold the fleet token."""

    def __init__(self, tokens: FleetTokens, revoked: Revoked = none_revoked) -> None:
        """`revoked` returns the ids of nodes that get nothing, whatever they hold."""
        self._tokens, self._revoked = tokens, revoked
        self._context = fleet_context()
        self._proved_connections = ProvedConnections(tokens, revoked)

    def sweep(self) -> None:
        """Close the connections to nodes that are revoked now."""
        self._proved_connections.tick(0.0)

    async def connect(
        self, origin: Origin, made: Callable[[], UpstreamConnection]
    ) -> UpstreamConnection:
        """Open a connection for HTTP; `made` makes its protocol.

        An origin with an `id` has to show the certificate of that id. Raises NotProven,
        OSError.
        """
        loop = asyncio.get_running_loop()
        try:
            transport, opening = await loop.create_connection(
                lambda: _Opening(loop),
                origin.host,
                origin.port,
                ssl=self._context,
                server_hostname=SERVER_NAME,
            )
        except ssl.SSLError as error:
            raise NotProven(f"{origin.url} {_reason(error)}") from error
        try:
            id_ = await self._proved(transport, opening, origin)
        except BaseException:
            transport.abort()
            raise
        connection = made()
        connection.id = id_
        transport.set_protocol(connection)
        connection.connection_made(transport)
        if opening.lost:
            connection.connection_lost(None)
        return connection

    async def _proved(
        self, transport: asyncio.Transport, opening: _Opening, origin: Origin
    ) -> str:
        """Exchange the proofs; return the id of the other side's certificate."""
        fingerprint = peer_fingerprint(transport.get_extra_info("ssl_object"))
        id_ = id_of(fingerprint)
        if origin.id and id_ != origin.id:
            raise NotProven(f"{origin.url} {ANOTHER}")
        if id_ in self._revoked():
            raise NotProven(f"{origin.url} {REVOKED}")
        proof = ClientProof(self._tokens.keys(), fingerprint)
        transport.write(proof.hello)
        try:
            transport.write(proof.answer(await opening.reply))
            assert proof.key is not None  # noqa: S101 - it was proved
            self._proved_connections.add(transport, proof.key, id_)
        except OtherToken as error:
            raise NotProven(f"{origin.url} {OTHER}") from error
        except (ProofError, ConnectionError) as error:
            raise NotProven(f"{origin.url} {UNPROVEN}") from error
        return id_


class _Opening(asyncio.Protocol):
    """Waits for the reply of the other side; see `edgeserve.security.proof`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.reply: asyncio.Future[bytes] = loop.create_future()
        self.lost = False
        self._data = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Take bytes; more than the reply breaks the protocol."""
        if not self.reply.done():
            self._data += data
            if len(self._data) >= REPLY:
                self.reply.set_result(self._data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what waits for the reply."""
        self.lost = True
        if not self.reply.done():
            self.reply.set_exception(exc or ConnectionResetError("hung up"))
            self.reply.exception()  # read here, in case that nothing waits


def _reason(error: ssl.SSLError) -> str:
    """Say why the TLS handshake failed."""
    if error.reason in {"WRONG_VERSION_NUMBER", "UNSUPPORTED_PROTOCOL"}:
        return OLDER
    return f"cannot agree on TLS: {error.reason or error}"
