"""Server-sent events: read from bytes in any pieces, and written back. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec


@dataclass(frozen=True, slots=True)
class Event:
    """One event; a bare comment has neither name nor data."""

    name: str
    data: bytes
    raw: bytes

    @property
    def comment(self) -> bool:
        """Whether it carries nothing but life."""
        return not self.name and not self.data


@dataclass
class Parser:
    """Cuts a stream into events; `rest` is the start of one that is not complete."""

    rest: bytes = field(default=b"")

    def feed(self, piece: bytes) -> list[Event]:
        """Return the events that `piece` completes."""
        blocks = (self.rest + piece).replace(b"\r\n", b"\n").split(b"\n\n")
        self.rest = blocks.pop()
        return [event(block + b"\n\n") for block in blocks]


def event(raw: bytes) -> Event:
    """Read one event, its closing blank line included."""
    name, data = "", list[bytes]()
    for line in raw.split(b"\n"):
        key, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if key == b"event":
            name = value.decode(errors="replace")
        elif key == b"data":
            data.append(value)
    return Event(name, b"\n".join(data), raw)


_END = b"\n\n"
DONE = b"[DONE]"


def whole_events(buffer: bytes) -> tuple[bytes, bytes]:
    """Split a buffer into the whole events it begins with, and the rest.

    Only whole events may go to a client: half an event could neither be taken back
    nor completed once the engine that wrote it is gone.
    """
    end = buffer.rfind(_END)
    if end < 0:
        return b"", buffer
    end += len(_END)
    return buffer[:end], buffer[end:]


def events(whole: bytes) -> Iterator[Event]:
    """Yield the events in a run of whole events."""
    for block in whole.split(_END):
        # Some routes end with an extra line, which is no event.
        if block.strip(b"\n"):
            yield event(block + _END)


def decoded(data: bytes) -> dict[str, Any]:
    """Decode an event's data, or raise ValueError where it is no JSON object."""
    return msgspec.json.decode(data, type=dict[str, Any])


def is_error(data: dict[str, Any]) -> bool:
    """Whether an event says that the engine gave up."""
    return "error" in data or data.get("type") == "error"


def written(data: dict[str, Any], name: str = "") -> bytes:
    """Write one event, compactly and unescaped, as llama-server does."""
    line = b"data: " + msgspec.json.encode(data) + _END
    return b"event: " + name.encode() + b"\n" + line if name else line
