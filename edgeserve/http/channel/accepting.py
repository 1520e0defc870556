"""Accepting side of the fleet channel: HTTP begins after the proof of the token.

What is no proof gets a fixed answer and the end of its connection, so that nothing that
parses is in reach of a stranger.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from edgeserve.http.channel.proved import ProvedConnections
from edgeserve.http.sockets import peer_of
from edgeserve.security.proof import (
    HELLO,
    MAC,
    MAGIC,
    REFUSAL,
    OtherToken,
    ProofError,
    ServerProof,
)
from edgeserve.security.tokens import FleetTokens

log = logging.getLogger(__name__)

PROOF_SECONDS = 10.0
"""How long a connection may take to prove itself."""

MOST_UNPROVEN = 256
"""Connections without a proof at once; past it the one that waits longest is closed."""

REFUSED_SECONDS = 1.0
"""How long a refused connection is held before it is told: guessing takes time."""

HEAD_BYTES = 8192
"""Longest head of a request without a proof."""

HEALTHY = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    b'content-length: 15\r\nconnection: close\r\n\r\n{"status":"ok"}'
)
_SENTENCE = (
    b'{"error":{"message":"this port of an EdgeServe node is for balancers that hold'
    b' the fleet token; clients ask the balancer","type":"authentication_error",'
    b'"code":"unauthorized","param":null}}'
)
UNPROVEN = (
    b"HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%s" % (len(_SENTENCE), _SENTENCE)
)
HEALTH = (b"GET /health ", b"HEAD /health ", b"GET /v1/health ")

Made = Callable[[], asyncio.Protocol]


class Proving:
    """What all connections of one port share until they have proved themselves."""

    def __init__(self, tokens: FleetTokens, fingerprint: Callable[[], str]) -> None:
        """`fingerprint` is that of the certificate that connections show now."""
        self._tokens, self._fingerprint = tokens, fingerprint
        self.proved = ProvedConnections(tokens)
        self._waiting: dict[_Unproven, None] = {}  # in order of arrival

    def __call__(self, made: Made) -> asyncio.Protocol:
        """Begin a connection; a protocol that is `made` gets it after the proof."""
        return _Unproven(self, made)

    def proof(self) -> ServerProof:
        """Begin a proof with the tokens that are valid now."""
        return ServerProof(self._tokens.keys(), self._fingerprint())

    def arrived(self, connection: _Unproven) -> None:
        """Count a connection; close another for it where there are too many."""
        self._waiting[connection] = None
        if len(self._waiting) > MOST_UNPROVEN:
            next(iter(self._waiting)).end()

    def departed(self, connection: _Unproven) -> None:
        """Count it no longer."""
        self._waiting.pop(connection, None)


class _Unproven(asyncio.Protocol):
    """One connection before its proof."""

    def __init__(self, port: Proving, made: Made) -> None:
        self._port, self._made = port, made
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._proof: ServerProof | None = None
        self._data = b""
        self._refused = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it; most that begin a handshake never come as far as this."""
        self._transport = cast(asyncio.Transport, transport)
        self._begin_timer(PROOF_SECONDS, self.end)
        self._port.arrived(self)

    def data_received(self, data: bytes) -> None:
        """Take bytes of the proof."""
        if self._refused:
            return
        self._data += data
        try:
            if self._proof is None:
                self._take_hello()
            if self._proof is not None and len(self._data) >= MAC:
                self._proof.check(self._data[:MAC])
                self._proved(self._proof, self._data[MAC:])
        except OtherToken:
            self._refuse(REFUSAL)
        except ProofError:
            self._refuse(b"")

    def _take_hello(self) -> None:
        data = self._data
        if not data.startswith(MAGIC[: len(data)]):
            self._answer_stranger(data)
        elif len(data) >= HELLO:
            proof = self._port.proof()
            reply = proof.reply(data[:HELLO])
            self._data, self._proof = data[HELLO:], proof
            self._write(reply)

    def _answer_stranger(self, data: bytes) -> None:
        """Answer a request without a proof, once its head is whole."""
        if b"\r\n\r\n" in data or len(data) > HEAD_BYTES:
            self._refused = True
            self._tell(HEALTHY if data.startswith(HEALTH) else UNPROVEN)

    def _refuse(self, last: bytes) -> None:
        self._refused = True
        peer = peer_of(self._transport) if self._transport else ""
        log.debug("refused a connection of %s: no proof of the fleet token", peer)
        self._begin_timer(REFUSED_SECONDS, self._tell, last)

    def _begin_timer(
        self, seconds: float, act: Callable[..., None], *of: bytes
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, act, *of)

    def _tell(self, last: bytes) -> None:
        """Say the last word; one that does not take it is closed soon, too."""
        self._begin_timer(REFUSED_SECONDS, self.end)
        self._write(last)
        if self._transport is not None:
            self._transport.close()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and data:
            self._transport.write(data)

    def _proved(self, proof: ServerProof, rest: bytes) -> None:
        """Begin HTTP; `rest` is what has come of it."""
        transport, key = self._transport, proof.key
        assert transport is not None  # noqa: S101 - data has come
        assert key is not None  # noqa: S101 - it was proved
        self._leave()
        self._port.proved.add(transport, key)
        inner = self._made()
        transport.set_protocol(inner)
        inner.connection_made(transport)
        if rest:
            inner.data_received(rest)

    def end(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Forget it."""
        self._leave()

    def _leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._port.departed(self)
