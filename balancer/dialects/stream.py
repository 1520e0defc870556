"""Stream reader: where content begins, how a stream ends, and error events. Pure.

Everything else passes as it is. Only the events before the first content are read one
by one; after it, an event is looked at for the mark of an end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from edgeserve.errors import EdgeserveError
from edgeserve.http.sse import (
    END,
    Event,
    parse_event,
    raw_events,
    whole_events,
    write_event,
)
from edgeserve.openai import Dialect, anthropic

STOPS, GOES_ON = b'"stop":true', b'"stop":false'
"""What each event of `/completion` holds; the request may leave it out of the last."""

ENDS: dict[Dialect, tuple[bytes, ...]] = {
    "chat": (b"\ndata: [DONE]",),
    "completion": (b"\ndata: [DONE]",),
    "native": (STOPS,),
    "responses": (b"\nevent: response.completed", b"\nevent: response.incomplete",
                  b"\nevent: response.failed"),
    "messages": (b"\nevent: message_stop",),
}  # fmt: skip
"""Quotes and line ends inside JSON strings are escaped: no text can look like these."""

ERRORS = (b'\ndata: {"error"', b"\nevent: error")
"""How llama.cpp tells of an error inside a stream, and then ends it."""

_GLANCE: dict[Dialect, bytes] = {
    "chat": b"[DONE]",
    "completion": b"[DONE]",
    "native": STOPS,
    "responses": b"event: response.",
    "messages": b"message_stop",
}
"""What every piece holds that holds an end."""

PROGRESS = b'"prompt_progress":{'
_TOLD = re.compile(rb',"prompt_progress":\{[^}]*\}')
LIFE = b":\n\n"
"""A comment: it says nothing but that somebody is there."""

QUIET = {"response.created", "response.in_progress", "message_start", "ping"}


class StreamedError(Exception):
    """The engine's own error, met inside a stream; `raw` is the event."""

    def __init__(self, status: int, body: bytes, raw: bytes = b"") -> None:
        super().__init__(f"the engine answered {status} inside its stream")
        self.status = status
        self.body = body
        self.raw = raw


class StreamReader(Protocol):
    """Follows a streamed answer; see `DialectStream`."""

    @property
    def begun(self) -> bool:
        """Whether content has come."""
        ...

    @property
    def worked(self) -> bool:
        """Whether the engine has shown work."""
        ...

    @property
    def prompt(self) -> int | None:
        """How many tokens it is to read, where it said so."""
        ...

    @property
    def error(self) -> StreamedError | None:
        """The error in which the engine let the answer end."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the answer is complete."""
        ...

    def feed(self, piece: bytes) -> bytes:
        """Return what the client may get now."""
        ...


@dataclass(slots=True)
class DialectStream:
    """Follows one answer of one dialect.

    `hides`: that the engine tells how far it has read was our wish, not the client's.
    `answers` is how many the stream holds, each with an end of its own where no event
    ends them all. `filtered`: their last events may lack the field that says so.
    `worked`: it has told. `prompt`: how many tokens it is to read. `error`: the error
    in which the engine let the answer end, after content; it is not passed on.
    """

    dialect: Dialect
    hides: bool = False
    answers: int = 1
    filtered: bool = False
    begun: bool = False
    ended: bool = False
    worked: bool = False
    prompt: int | None = None
    error: StreamedError | None = None
    _ends: int = 0
    _rest: bytes = b""
    _held: list[bytes] = field(default_factory=list[bytes])

    def feed(self, piece: bytes) -> bytes:
        """Return the whole events that may go out now.

        Before content has begun these are signs of life only; the rest is held back,
        so that another node may still answer instead. Raises StreamedError there.
        """
        ready = piece
        if self._rest or not piece.endswith(END):
            ready, self._rest = whole_events(self._rest + piece)
        if not self.begun or (self.hides and PROGRESS in ready):
            ready = b"".join(map(self._sieved, raw_events(ready)))
        return self._until_end(ready) if self.begun else ready

    def _sieved(self, raw: bytes) -> bytes:
        """Return what may go out when one more event has come.

        Of several answers one may be read while another is written.
        """
        if self.begun:
            return b"" if self.hides and PROGRESS in raw else raw
        each = parse_event(raw)
        if PROGRESS in each.data:
            first = not self.worked
            self._note_progress(each.data)
            if self.hides and first and self.dialect == "responses":
                # Which is an event of its own, that comes once in any case.
                self._held.append(_TOLD.sub(b"", raw))
            return b"" if self.hides else raw
        if each.comment:
            return raw
        if each.data == b"null":
            return b""  # what llama.cpp makes of a first result without text
        if _any(ERRORS, raw):
            raise streamed_error(each.data)
        self._held.append(raw)
        self.begun = carries_content(self.dialect, each)
        return b"".join(self._held) if self.begun else b""

    def _note_progress(self, data: bytes) -> None:
        self.worked = True
        if self.prompt is None:
            self.prompt = _total(data)

    def _until_end(self, ready: bytes) -> bytes:
        """Look for an end; most pieces show at a glance that they hold none."""
        if self.error is not None:
            return b""
        if b'"error"' in ready and _any(ERRORS, ready):
            return self._until_error(ready)
        if self.filtered or (_GLANCE[self.dialect] in ready and not self.ended):
            self.ended = self._ends_in(ready)
        return ready

    def _ends_in(self, ready: bytes) -> bool:
        if self.dialect != "native":
            return _any(ENDS[self.dialect], ready)
        if self.filtered:
            told = (b"\n" + ready).count(b"\ndata: ")
            self._ends += told - ready.count(GOES_ON)
        else:
            self._ends += ready.count(STOPS)
        return self._ends >= self.answers

    def _until_error(self, ready: bytes) -> bytes:
        passed = b""
        for raw in raw_events(ready):
            if _any(ERRORS, raw):
                self.error = streamed_error(parse_event(raw).data, raw)
                return passed
            passed += raw
        return passed


def _total(data: bytes) -> int | None:
    try:
        total = msgspec.json.decode(data, type=dict[str, Any])["prompt_progress"][
            "total"
        ]
    except (msgspec.DecodeError, LookupError, TypeError):
        return None
    return total if isinstance(total, int) else None


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
            return bool(data.get("content")) or data.get("stop") is not False
        case _:
            return (each.name or data.get("type")) not in QUIET


def _choice_speaks(choice: Mapping[str, Any]) -> bool:
    said = {key: value for key, value in choice["delta"].items() if key != "role"}
    return any(said.values()) or choice.get("finish_reason") is not None


def streamed_error(data: bytes, raw: bytes = b"") -> StreamedError:
    """Read llama.cpp's error event; its body has the shape of a plain error."""
    body = msgspec.json.decode(data, type=dict[str, Any])
    error: dict[str, Any] = body.get("error", body)
    code = error.get("code")
    return StreamedError(
        code if isinstance(code, int) and 400 <= code < 600 else 500,
        json.dumps({"error": error}).encode(),
        raw,
    )


def error_event(dialect: Dialect, error: EdgeserveError, request_id: str = "") -> bytes:
    """Tell a client, inside its stream, that the rest will not come."""
    said = error.envelope()
    match dialect:
        case "messages":
            return write_event(anthropic(error, request_id), "error")
        case "responses":
            # `error` inside makes OpenAI's client raise; the rest is the event's shape.
            return write_event({**said, "type": "error", "error": said}, "error")
        case _:
            return write_event({"error": said})
