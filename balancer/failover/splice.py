"""Stream splicing: join the answer of another engine to the answer so far. Pure."""

from __future__ import annotations

from dataclasses import replace
from os.path import commonprefix
from typing import Any, Literal

import msgspec

from balancer.dialects import chunks
from balancer.dialects.base import (
    Dialect,
    Json,
    ParsedEvent,
    Transcript,
    decoded,
    is_error,
    streamed_error,
)
from balancer.dialects.chunks import DONE_EVENT
from balancer.dialects.stream import DialectStream, StreamObserver, StreamReader
from balancer.dialects.timings import PROGRESS, TIMINGS, USAGE, Timings
from balancer.dialects.usage import TokenCount
from balancer.request import InferenceRequest
from balancer.servers.stream import ServerEvents, ServerStream
from edgeserve.config.settings import BalancerSettings
from edgeserve.http.sse import (
    DONE,
    Event,
    EventReader,
    write_event,
)


class Splice(StreamReader):
    """Reads the engine that continues an answer; returns the client's events.

    `ended`: the answer is complete; whatever else comes is dropped. `error`: the
    engine's own error event, which does not go to the client. Nothing more comes out
    after either. `per_token`: the client asked for timings with each token. `source`:
    for a server that is no node. `space`: white space that the client has already, and
    the engine writes once more.
    """

    dialect: Dialect
    transcript: Transcript
    count: TokenCount
    per_token: bool
    source: ServerEvents | None = None
    space: str = ""
    _again: int = 0
    _reader: EventReader = msgspec.field(default_factory=EventReader)
    _text: str = ""
    _prompt_seen: bool = False
    _wrote: bool = False

    def feed(self, piece: bytes) -> bytes:
        """Take some bytes, cut anywhere; return whole events for the client."""
        if self.source is not None:
            self.source.begun = self._wrote
            piece = self.source.feed(piece)
        if TIMINGS in piece or USAGE in piece:
            self._counted = (self._counted[1], piece)
        if PROGRESS in piece:
            self._note_reading(piece)
        out = b"".join(map(self._pass, self._reader.feed(piece)))
        if out:
            self._note_output()
        return out

    def finish(self) -> bytes:
        """See `ServerStream.finish`."""
        if self.ended or self.error is not None:
            return b""
        if self.source is None or not self.source.finished:
            return b""
        self.ended = True
        return DONE_EVENT

    def timings(self) -> Timings | None:
        """See `ServerStream.timings`."""
        return super().timings() or (self.source.usage if self.source else None)

    def _note_reading(self, piece: bytes) -> None:
        if self._wrote:
            self.worked = True
        else:
            self.note_progress(piece)

    def _note_output(self) -> None:
        self.worked = True
        if not self._wrote:
            self._wrote = True
            self.note_content()

    def _pass(self, each: Event) -> bytes:
        if self.ended or self.error is not None:
            return b""
        if each.data == DONE:
            self.ended = True
            return each.raw
        if each.comment:
            return each.raw
        try:
            event = decoded(each.data)
        except ValueError as error:
            return self._fail({"message": f"the engine sent no JSON: {error}"})
        if is_error(event):
            return self._fail(event)
        return self._adopt(each.name, event, self.dialect.parse(event))

    def _fail(self, event: Json) -> bytes:
        self.error = streamed_error(msgspec.json.encode(event))
        return b""

    def _adopt(self, name: str, event: dict[str, Any], parsed: ParsedEvent) -> bytes:
        self._count(parsed)
        if self._is_repeated(parsed):
            return b""
        text = parsed.text
        if self.space and text:
            text = self._less_space(event, text)
            if not (text or parsed.last):
                return b""
        if self.count.past_limit and not parsed.last:
            return self._end()
        if not (self.per_token or parsed.last):
            event.pop("timings", None)
        event.pop("prompt_progress", None)
        self.dialect.adapt(event, self.transcript, self.count)
        self.ended = self.dialect.is_last(event)
        out = write_event(event, name)
        self._text += text
        if text and self.count.at_limit:
            out += self._end()
        return out

    def _less_space(self, event: Json, text: str) -> str:
        """Take out of an event what the client has already; return its text."""
        again = len(commonprefix((self.space, text)))  # noqa: RUF071 - no paths
        if again == len(text):
            self.space = self.space[again:]
            self._again += 1
            self.count.here -= 1
        else:
            self.space = ""
        chunks.set_text(event, text[again:])
        return text[again:]

    def _count(self, parsed: ParsedEvent) -> None:
        if parsed.prompt is not None and not self._prompt_seen:
            self.count.saw_prompt(parsed.prompt)
            self._prompt_seen = True
        if parsed.tokens is not None:
            self.count.here = max(0, parsed.tokens - self._again)
        elif parsed.step:
            self.count.here += 1

    def _is_repeated(self, parsed: ParsedEvent) -> bool:
        """Whether the client has this event already, or does not need it."""
        if parsed.opening is None:
            return parsed.progress
        repeated = self.transcript.begun or parsed.opening in self.transcript.openings
        self.transcript.openings.add(parsed.opening)
        return repeated and not parsed.last

    def _end(self) -> bytes:
        """End the answer here: the engine was granted more than was left."""
        self.ended = True
        self.count.here = (self.count.limit or 0) - self.count.before
        whole = replace(self.transcript, text=self.transcript.text + self._text)
        return self.dialect.end_events(whole, self.count)


ResumePolicy = Literal["same-variant", "any", "off"]
"""Which engines may continue: of the same variant, of the same model, or none."""

MIGRATIONS = 2
"""Times that one answer may move to another engine without growing: if several engines
fail at the same place, the request is the cause."""

GROWTH = 4096
"""Bytes of events, some sixteen tokens, by which an answer has grown."""

MOST_MIGRATIONS = 8
"""Times that one answer may move to another engine in all."""


def policy_of(settings: BalancerSettings) -> ResumePolicy:
    """Take the policy from the settings."""
    match settings.resume:
        case "any" | "off" as policy:
            return policy
        case _:
            return "same-variant"


def reader_for(
    request: InferenceRequest, id_: str, model: str, observer: StreamObserver | None
) -> DialectStream:
    """Return a reader for an answer of `model`; `id_` is for a head written here.

    An answer that is aggregated gets no such head: it lacks the length of the prompt,
    so the engine is asked again.
    """
    head = request.dialect.head(id_, model) if request.mode == "stream" else b""
    return DialectStream(
        request.dialect,
        hides=not request.wants_progress,
        ends=request.ends,
        filtered=request.filtered,
        head=head,
        observer=observer,
    )


def server_reader(
    request: InferenceRequest, observer: StreamObserver | None
) -> ServerStream:
    """Return a reader for an answer of a server that is no node."""
    return ServerStream(
        dialect=request.dialect,
        ends=request.ends,
        source=ServerEvents(
            hides_usage=request.mode == "stream" and not request.wants_usage
        ),
        observer=observer,
    )
