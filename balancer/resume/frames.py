"""Whole server-sent events: found in a buffer, decoded, and written back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from balancer.sse import Event, event

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
