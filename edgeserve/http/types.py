"""HTTP types: requests, responses, origins and upstreams, as handlers see them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

import msgspec

from edgeserve.errors import SettingsError


class Request(msgspec.Struct, frozen=True):
    """One complete client request. Header names are in lower case.

    `asked` is the path that the client has asked for, where it is translated.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    peer: str
    asked: str = ""

    @property
    def target(self) -> str:
        """Path and query as they stand in the request line."""
        return f"{self.path}?{self.query}" if self.query else self.path


class Response(Protocol):
    """The answer to one client. Header names are in lower case.

    `write` returns when the client's buffer has room, so that a slow client slows only
    its own answer. All methods raise ConnectionError when the client is gone.
    """

    @property
    def started(self) -> bool:
        """Whether the status line is sent, after which it cannot be changed."""
        ...

    @property
    def paused(self) -> bool:
        """Whether the client's buffer is full, so that its answer pauses."""
        ...

    @property
    def missed(self) -> bool:
        """Whether something could not be sent, because the client had gone."""
        ...

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the status and headers of an answer of unknown length."""
        ...

    async def write(self, data: bytes) -> None:
        """Send a piece of the body."""
        ...

    async def finish(self) -> None:
        """End the body."""
        ...

    async def send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send a complete answer."""
        ...


class ChangedResponse:
    """The state of a response that changes what is written into it.

    `reply` is the client's own, which it writes to.
    """

    __slots__ = ("reply",)

    def __init__(self, reply: Response) -> None:
        self.reply = reply

    @property
    def started(self) -> bool:
        """See `Response`."""
        return self.reply.started

    @property
    def paused(self) -> bool:
        """See `Response`."""
        return self.reply.paused

    @property
    def missed(self) -> bool:
        """See `Response`."""
        return self.reply.missed


Handler = Callable[[Request, Response], Awaitable[None]]
"""Answers one request. It is cancelled at once when the client leaves."""


class Origin(msgspec.Struct, frozen=True, cache_hash=True):
    """The address of a server.

    `id` is the node that has to answer there, known by its certificate; "" for any.
    """

    host: str
    port: int
    tls: bool = False
    id: str = ""

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


def origins_of(id_: str, urls: Iterable[str]) -> list[Origin]:
    """Return where to try a node: with TLS only that node can answer there."""
    found = list[Origin]()
    for url in urls:
        with suppress(ValueError):
            origin = origin_of(url, 0)
            if origin.tls:
                origin = msgspec.structs.replace(origin, id=id_)
            found.append(origin)
    return found


def origin_set(url: str, default_port: int, option: str) -> Origin:
    """Turn the URL that a setting names into an origin. Raises SettingsError."""
    try:
        return origin_of(url, default_port)
    except ValueError as error:
        raise SettingsError(f"{option} is {url!r}, which is no URL: {error}") from error


class Answer(Protocol):
    """An upstream's answer, whose head has come. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]

    @property
    def id(self) -> str:
        """The id that belongs to the upstream's certificate; "" without TLS of ours."""
        ...

    async def read(self) -> bytes:
        """Return the rest of the body. Raises NodeLost where it ends early."""
        ...

    async def chunk(self) -> bytes:
        """Return the next piece of the body, b"" at its end. Raises NodeLost."""
        ...

    async def pump(self, reply: Response, observe: Callable[[bytes], None]) -> None:
        """Pass the rest of the body to the client as it comes; `observe` gets it too.

        Raises NodeLost where the body ends early, ConnectionError where the client has
        gone. It neither starts nor finishes the reply.
        """
        ...

    async def pump_filtered(
        self, reply: Response, filter_: Callable[[bytes], bytes]
    ) -> None:
        """Do as `pump` does, with what `filter_` returns for each piece."""
        ...


class Upstream(Protocol):
    """Sends requests to servers. Leaving the block early cancels the request."""

    def ask(
        self,
        origin: Origin,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes = b"",
    ) -> AbstractAsyncContextManager[Answer]:
        """Send a request and wait for the answer's head, without a time limit.

        Header names are in lower case. Raises NodeLost where the server cannot be
        reached or closes the connection before the head.
        """
        ...


def parts_of(url: str) -> tuple[SplitResult, int]:
    """Return the parts of a balancer's URL, and its port. Raises SettingsError."""
    try:
        parts = urlsplit(url.rstrip("/").removesuffix("/v1"))
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise SettingsError(f"--url is {url!r}, which is no URL: {error}") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise SettingsError(f"--url is {url!r}: must be like http://127.0.0.1:8080")
    return parts, port
