"""HTTP types: requests, responses, origins and upstreams, as handlers see them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from edgeserve.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Request:
    """One client request, whole. Header names are lower-case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    peer: str

    @property
    def target(self) -> str:
        """Path and query as they stand in the request line."""
        return f"{self.path}?{self.query}" if self.query else self.path


class Response(Protocol):
    """The way back to one client; it carries at most one answer.

    `write` returns when the client's buffer has room again, so that a slow reader slows
    only itself. All of them raise ConnectionError when the client is gone.
    """

    @property
    def started(self) -> bool:
        """Whether the status line is out; from then on it cannot be changed."""
        ...

    @property
    def paused(self) -> bool:
        """Whether more waits for the client than it takes, so that its answer halts."""
        ...

    @property
    def missed(self) -> bool:
        """Whether something could not be sent, for the client had gone."""
        ...

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the status and headers of an answer whose length is not known."""
        ...

    async def write(self, data: bytes) -> None:
        """Send a piece of the body."""
        ...

    async def finish(self) -> None:
        """End the body."""
        ...

    async def send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send a whole answer at once."""
        ...


Handler = Callable[[Request, Response], Awaitable[None]]
"""Answers one request. Cancelled at once when the client leaves."""


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
    """Turn `http://host:port` into an origin. Raises ValueError."""
    parts = urlsplit(url)
    return Origin(
        parts.hostname or "", parts.port or default_port, parts.scheme == "https"
    )


def origin_set(url: str, default_port: int, option: str) -> Origin:
    """Turn the URL that a setting names into an origin. Raises SettingsError."""
    try:
        return origin_of(url, default_port)
    except ValueError as error:
        raise SettingsError(f"{option} is {url!r}, which is no URL: {error}") from error


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

    async def pump(self, reply: Response, see: Callable[[bytes], None]) -> None:
        """Pass the rest of the body to the client as it comes, showing it to `see`.

        Raises NodeLost where the body is cut short, ConnectionError where the client
        has gone. Neither starts nor finishes the reply.
        """
        ...

    async def sift(self, reply: Response, sieve: Callable[[bytes], bytes]) -> None:
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
