"""What every way of putting a stream together offers. Pure."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from balancer.sse import Event
from balancer.stream import ERRORS, streamed_error

Json = dict[str, Any]


class Incomplete(Exception):
    """The stream ended before the answer did."""


class Headless(Exception):
    """The stream is whole but lacks its beginning: the engine must be asked anew.

    llama.cpp sends a message's head with the first token, and no event for a token that
    is only a part of a character.
    """


class Aggregate(Protocol):
    """Takes a stream's events, gives the body of the answer."""

    def add(self, event: Event) -> None:
        """Take in one event. Raises StreamedError where it tells of an error."""
        ...

    def body(self) -> bytes:
        """Return the whole answer. Raises Incomplete or Headless."""
        ...


def data_of(event: Event) -> Json | None:
    """Decode an event; None for comments and end marks, StreamedError for errors."""
    if any(mark in b"\n" + event.raw for mark in ERRORS):
        raise streamed_error(event.data)
    if not event.data.startswith(b"{"):
        return None
    data: Json = msgspec.json.decode(event.data)
    return data


def encoded(body: Json | list[Json]) -> bytes:
    """Render an answer."""
    return msgspec.json.encode(body)
