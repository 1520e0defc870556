"""Server-sent events: one reader, for bytes in any pieces, and one writer. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

END = b"\n\n"
"""The blank line that closes an event."""

DONE = b"[DONE]"
"""The data of the last event of OpenAI's streams."""


class Event(msgspec.Struct, frozen=True):
    """One event; a bare comment has neither name nor data."""

    name: str
    data: bytes
    raw: bytes

    @property
    def comment(self) -> bool:
        """Whether it is only a keep-alive."""
        return not self.name and not self.data


class EventReader(msgspec.Struct):
    """Cuts a stream into events; `rest` is the start of an incomplete one."""

    rest: bytes = b""

    def feed(self, piece: bytes) -> list[Event]:
        """Return the events that `piece` completes."""
        ready, self.rest = whole_events((self.rest + piece).replace(b"\r\n", b"\n"))
        return [parse_event(block) for block in raw_events(ready)]


def whole_events(buffer: bytes) -> tuple[bytes, bytes]:
    """Split a buffer into the whole events it begins with, and the rest.

    Only whole events may go to a client: half an event cannot be taken back, and no
    other engine can complete it.
    """
    whole, end, rest = buffer.rpartition(END)
    return whole + end, rest


def raw_events(whole: bytes) -> Iterator[bytes]:
    """Yield the bytes of each event in a run of whole events."""
    for block in whole.split(END):
        # Some routes end with an extra line, which is no event.
        if block.strip(b"\n"):
            yield block + END


def parse_event(raw: bytes) -> Event:
    """Parse one event, its closing blank line included."""
    name, data = "", list[bytes]()
    for line in raw.split(b"\n"):
        key, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if key == b"event":
            name = value.decode(errors="replace")
        elif key == b"data":
            data.append(value)
    return Event(name, b"\n".join(data), raw)


def write_event(data: bytes | Mapping[str, Any], name: str = "") -> bytes:
    """Write one event. Bytes must be one line; an object becomes compact JSON."""
    encoded = data if isinstance(data, bytes) else msgspec.json.encode(data)
    line = b"data: " + encoded + END
    return b"event: " + name.encode() + b"\n" + line if name else line
