"""A client's request and the way back to it: what the relay hands to a handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol


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


class Reply(Protocol):
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


Handler = Callable[[Request, Reply], Awaitable[None]]
"""Answers one request. Cancelled at once when the client leaves."""
