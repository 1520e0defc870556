"""The other side of the relay: ask a server, get its answer piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from edgeserve.relay.exchange import Reply


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a server listens."""

    host: str
    port: int
    tls: bool = False

    @property
    def url(self) -> str:
        """The base URL, without a trailing slash; IPv6 addresses in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


def origin_of(url: str, default_port: int) -> Origin:
    """Turn `http://host:port` into an origin."""
    parts = urlsplit(url)
    return Origin(
        parts.hostname or "", parts.port or default_port, parts.scheme == "https"
    )


class Answer(Protocol):
    """An upstream's answer; its head has arrived. Header names are lower-case."""

    status: int
    headers: Mapping[str, str]

    async def read(self) -> bytes:
        """Return the rest of the body. Raises NodeLost where it is cut short."""
        ...

    async def chunk(self) -> bytes:
        """Return the next piece of the body, b"" at its end. Raises NodeLost."""
        ...

    async def pump(self, reply: Reply, see: Callable[[bytes], None]) -> None:
        """Pass the rest of the body to the client as it comes, showing it to `see`.

        Raises NodeLost where the body is cut short, ConnectionError where the client
        has gone. Neither starts nor finishes the reply.
        """
        ...

    async def sift(self, reply: Reply, sieve: Callable[[bytes], bytes]) -> None:
        """Pass on what `sieve` makes of each piece, as `pump` does; b"" for nothing."""
        ...


class Upstream(Protocol):
    """Asks servers. Leaving the block early closes the connection, which cancels."""

    def ask(
        self,
        origin: Origin,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes = b"",
    ) -> AbstractAsyncContextManager[Answer]:
        """Send a request and wait for the answer's head, however long it takes.

        Raises NodeLost where the server cannot be reached or hangs up before the head.
        """
        ...
