"""What matters in a streamed answer: where content begins, and that it ends well. Pure.

Everything else passes as it is. Only the events before the first content are read one
by one; after it, an event is looked at for the mark of an end.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from balancer.sse import Event, event
from edgeserve.errors import EdgeserveError
from edgeserve.openai import Dialect

ENDS: dict[Dialect, tuple[bytes, ...]] = {
    "chat": (b"\ndata: [DONE]",),
    "completion": (b"\ndata: [DONE]",),
    "native": (b'"stop":true',),
    "responses": (b"\nevent: response.completed", b"\nevent: response.incomplete",
                  b"\nevent: response.failed"),
    "messages": (b"\nevent: message_stop",),
}  # fmt: skip
"""Quotes and line ends inside JSON strings are escaped: no text can look like these."""

ERRORS = (b'\ndata: {"error"', b"\nevent: error")
"""How llama.cpp tells of an error inside a stream, and then ends it."""

QUIET = {"response.created", "response.in_progress", "message_start", "ping"}


class StreamedError(Exception):
    """The engine's own error, met inside a stream before any content."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"the engine answered {status} inside its stream")
        self.status = status
        self.body = body


@dataclass
class Listener:
    """Follows one answer of one dialect."""

    dialect: Dialect
    begun: bool = False
    ended: bool = False
    _rest: bytes = b""
    _held: list[bytes] = field(default_factory=list[bytes])

    def feed(self, piece: bytes) -> bytes:
        """Return the whole events that may go out now.

        Before content has begun these are signs of life only; the rest is held back,
        so that another node may still answer instead. Raises StreamedError there.
        """
        whole, mark, self._rest = (self._rest + piece).rpartition(b"\n\n")
        ready = whole + mark
        if ready and not self.begun:
            ready = b"".join(map(self._sieved, _blocks(ready)))
        if self.begun:
            self._look_for_end(ready)
        return ready

    def _sieved(self, raw: bytes) -> bytes:
        """Return what may go out when one more event has come."""
        if self.begun or _is_sign_of_life(each := event(raw)):
            return raw
        if _any(ERRORS, raw):
            raise streamed_error(each.data)
        self._held.append(raw)
        self.begun = carries_content(self.dialect, each)
        return b"".join(self._held) if self.begun else b""

    def _look_for_end(self, ready: bytes) -> None:
        self.ended = self.ended or _any((*ENDS[self.dialect], *ERRORS), ready)


def _blocks(ready: bytes) -> list[bytes]:
    return [block + b"\n\n" for block in ready.split(b"\n\n")[:-1]]


def _is_sign_of_life(each: Event) -> bool:
    return each.comment or b'"prompt_progress":{' in each.data


def _any(marks: Iterable[bytes], events: bytes) -> bool:
    lines = b"\n" + events
    return any(mark in lines for mark in marks)


def carries_content(dialect: Dialect, each: Event) -> bool:
    """Whether an event holds something that the client would miss or see twice."""
    try:
        data = msgspec.json.decode(each.data, type=dict[str, Any])
    except msgspec.DecodeError:
        return True
    match dialect:
        case "chat":
            return any(_choice_speaks(choice) for choice in data.get("choices", []))
        case "completion":
            return any(
                choice.get("text") or choice.get("finish_reason")
                for choice in data.get("choices", [])
            )
        case "native":
            return bool(data.get("content") or data.get("stop"))
        case _:
            return (each.name or data.get("type")) not in QUIET


def _choice_speaks(choice: Mapping[str, Any]) -> bool:
    said = {key: value for key, value in choice["delta"].items() if key != "role"}
    return any(said.values()) or choice.get("finish_reason") is not None


def streamed_error(data: bytes) -> StreamedError:
    """Read llama.cpp's error event; its body has the shape of a plain error."""
    body = msgspec.json.decode(data, type=dict[str, Any])
    error: dict[str, Any] = body.get("error", body)
    code = error.get("code")
    return StreamedError(
        code if isinstance(code, int) and 400 <= code < 600 else 500,
        json.dumps({"error": error}).encode(),
    )


def error_event(dialect: Dialect, error: EdgeserveError) -> bytes:
    """Tell a client, inside its stream, that the rest will not come."""
    said: dict[str, Any] = {
        "message": str(error),
        "type": error.kind,
        "code": error.code,
        "param": None,
    }
    match dialect:
        case "messages":
            shown = {"type": "api_error", "message": said["message"]}
            return _named("error", {"type": "error", "error": shown})
        case "responses":
            # `error` inside makes OpenAI's client raise; the rest is the event's shape.
            return _named("error", {"type": "error", **said, "error": said})
        case _:
            return _framed({"error": said})


def _named(name: str, data: Mapping[str, Any]) -> bytes:
    return f"event: {name}\n".encode() + _framed(data)


def _framed(data: Mapping[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(data) + b"\n\n"
