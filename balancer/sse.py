"""Server-sent events: bytes in whatever pieces they come, to events. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field


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
