"""Server stream: reads the answer of a server that is no node. Pure.

Servers with OpenAI's API write line ends, spaces, errors and reasoning in their own
ways, may leave out `[DONE]`, and send it even after an error. What comes out of here is
as llama.cpp writes it. The usage is requested for our own counts, too.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec

from balancer.dialects.chunks import DONE_EVENT
from balancer.dialects.stream import CUT_SHORT, DialectStream
from balancer.dialects.timings import Timings, openai_usage
from edgeserve.http.sse import (
    DONE,
    END,
    Event,
    parse_event,
    raw_events,
    whole_events,
    write_event,
)
from edgeserve.servers.errors import error, error_of
from edgeserve.wire import MALFORMED

REASONING, OURS = b'"reasoning":', b'"reasoning_content":'
"""The field as vLLM and Ollama call it, and as llama.cpp does. Quotes inside JSON
strings are escaped: no text looks like it."""

NO_EVENT = "the server sent an event that is none of this API; see its log"
ENDLESS = "the server sent an event without end; see its log"

FAILED = frozenset(("abort", "error"))
"""Reasons for an end that are failures of the server."""

_LINE = b"data: "

LARGEST_EVENT = 4 * 2**20
"""Bytes of one event; a stream that has no end of an event is not read on for ever."""

_Index = Annotated[int, msgspec.Meta(ge=0, lt=2**16)]


class _Call(msgspec.Struct):
    index: _Index = 0
    function: dict[str, Any] | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    index: _Index = 0
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    """What is read of an event, and must be what it is for what else reads it."""

    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None
    object: Any = None
    message: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


class ServerEvents(msgspec.Struct, kw_only=True):
    """Turns the events of a server into llama.cpp's.

    `hides_usage`: the client did not ask for it. `begun`: content has come before.
    `finished`: how many reasons for an end have come. `usage`: the tokens that the
    server has counted.
    """

    hides_usage: bool = False
    begun: bool = False
    finished: int = 0
    usage: Timings | None = None
    _partial: bytes = b""
    _done: bool = False

    def feed(self, piece: bytes) -> bytes:
        """Take some bytes, cut anywhere; return whole events."""
        if not (self._partial or self._done) and _is_ours(piece):
            return piece
        joined = (self._partial + piece).replace(b"\r\n", b"\n")
        ready, self._partial = whole_events(joined)
        if len(self._partial) > LARGEST_EVENT:
            self._partial = b""
            ready += write_event({"error": error(ENDLESS, 500)})
        return b"".join(map(self._as_ours, raw_events(ready))) if ready else b""

    def _as_ours(self, raw: bytes) -> bytes:
        if self._done:
            return b""  # whatever comes after the end is no part of the answer
        raw = raw.lstrip(b"\n")
        if not raw.isascii():
            raw = raw.decode(errors="replace").encode()  # half a character
        event = parse_event(raw)
        if not event.data:
            return b":\n\n" if raw.startswith(b":") else b""
        if event.data == DONE:
            # Without any content before it, it ends nothing.
            self._done = bool(self.finished or self.begun)
            return DONE_EVENT if self._done else b""
        try:
            chunk = _decode(event.data)
        except MALFORMED as wrong:
            return write_event({"error": error(f"{NO_EVENT} ({wrong})", 500)})
        if chunk.error or chunk.object == "error" or event.name == "error":
            return write_event({"error": error_of(event.data, 500)})
        return self._chunk(event, chunk)

    def _chunk(self, event: Event, chunk: _Chunk) -> bytes:
        for each in chunk.choices or ():
            if each.finish_reason in FAILED:
                why = f"the server ended the answer: {each.finish_reason}"
                return write_event({"error": error(why, 500)})
            self.finished += each.finish_reason is not None
        if isinstance(chunk.usage, dict):
            usage = openai_usage(chunk.usage)
            self.usage = usage or self.usage
            if not chunk.choices and (self.hides_usage or usage is None):
                return b""
        data = event.data.replace(b"\n", b" ")  # several lines of one event
        return write_event(data.replace(REASONING, OURS) if REASONING in data else data)


def _is_ours(piece: bytes) -> bool:
    """Whether it is one event, of text alone, that needs no change: most are."""
    if not piece.startswith(_LINE) or piece.find(b"\n") != len(piece) - len(END):
        return False
    if not piece.endswith(END) or REASONING in piece:
        return False
    try:
        chunk = _decode(piece[len(_LINE) :])
        _ = piece.decode()  # refuses half a character
    except MALFORMED:
        return False
    if chunk.error or chunk.usage is not None or chunk.object == "error":
        return False
    choices = chunk.choices or ()
    return bool(choices) and all(each.finish_reason is None for each in choices)


class ServerStream(DialectStream):
    """Reads one answer of a server."""

    signals_head: ClassVar[bool] = False
    cut_short: ClassVar[str] = (
        f"{CUT_SHORT}, without a `finish_reason` of the server; see its log"
    )

    source: ServerEvents = msgspec.field(default_factory=ServerEvents)

    def feed(self, piece: bytes) -> bytes:
        """See `DialectStream.feed`."""
        source = self.source
        source.begun = self.begun
        ready = source.feed(piece)
        return super().feed(ready) if ready else b""

    def finish(self) -> bytes:
        """Write `[DONE]` where the server ended without it, but with a reason."""
        if self.ended or self.error is not None or self.source.finished < self.ends:
            return b""
        self.ended = True
        return DONE_EVENT

    def timings(self) -> Timings | None:
        """Return the server's own timings, or the tokens that it has counted."""
        return super().timings() or self.source.usage


def as_stream(body: bytes) -> bytes:
    """Write a whole answer as the stream that was requested: some servers have none."""
    found = msgspec.json.decode(body)
    choices = [_as_delta(each) for each in found["choices"]]
    usage = found.pop("usage", None)
    if found.get("object") == "chat.completion":
        found["object"] = "chat.completion.chunk"
    events = [{**found, "choices": choices}]
    if isinstance(usage, dict):
        events.append({**found, "choices": [], "usage": usage})
    return b"".join(map(write_event, events)) + DONE_EVENT


def _as_delta(choice: dict[str, Any]) -> dict[str, Any]:
    ends = {**choice, "finish_reason": choice.get("finish_reason") or "stop"}
    message = ends.pop("message", None)
    if not isinstance(message, dict):
        return ends
    calls = message.get("tool_calls") or ()
    numbered = [{**each, "index": number} for number, each in enumerate(calls)]
    delta = {**message, "tool_calls": numbered} if numbered else message
    return {**ends, "delta": delta}
