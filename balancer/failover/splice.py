"""Stream splicing: join the answer of a second engine to that of the first. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec

from balancer.dialects.base import (
    Dialect,
    ParsedEvent,
    StreamedError,
    Transcript,
    decoded,
    is_error,
    streamed_error,
)
from balancer.dialects.stream import (
    PROGRESS,
    DialectStream,
    StreamReader,
)
from balancer.dialects.timings import (
    MARKS,
    Timings,
    progress_in,
    timings_in,
    usage_in,
    usage_streamed,
)
from balancer.dialects.usage import TokenCount
from balancer.request import InferenceRequest
from balancer.routing.decision import AttemptObserver
from edgeserve.config.settings import BalancerSettings
from edgeserve.http.sse import (
    DONE,
    Event,
    EventReader,
    write_event,
)


class Splice:
    """Feed it what the next engine sends; it returns what the client should get.

    `finished`: the answer is complete; whatever else comes is to be thrown away.
    `error`: the engine's own error event, which is kept from the client; None while
    all is well. Nothing more comes out after either.
    """

    def __init__(
        self, dialect: Dialect, said: Transcript, tally: TokenCount, *, timings: bool
    ) -> None:
        self._dialect = dialect
        self._said = said
        self._tally = tally
        self._timings = timings
        self._reader = EventReader()
        self._text = ""
        self._prompt_seen = False
        self.finished = False
        self.error: dict[str, Any] | None = None

    def feed(self, data: bytes) -> bytes:
        """Take some bytes, cut anywhere; return whole events for the client."""
        out = bytearray()
        for each in self._reader.feed(data):
            if self.finished or self.error is not None:
                break
            out += self._pass(each)
        return bytes(out)

    def _pass(self, each: Event) -> bytes:
        if each.data == DONE:
            self.finished = True
            return each.raw
        if each.comment:
            return each.raw
        try:
            event = decoded(each.data)
        except ValueError as error:
            self.error = {"message": f"the engine sent no JSON: {error}"}
            return b""
        if is_error(event):
            self.error = event
            return b""
        return self._adopt(each.name, event, self._dialect.parse(event))

    def _adopt(self, name: str, event: dict[str, Any], heard: ParsedEvent) -> bytes:
        self._count(heard)
        if self._again(heard):
            return b""
        if self._tally.past_limit and not heard.last:
            return self._end()
        if not (self._timings or heard.last):
            event.pop("timings", None)
        event.pop("prompt_progress", None)
        self._dialect.adapt(event, self._said, self._tally)
        self.finished = self._dialect.is_last(event)
        out = write_event(event, name)
        self._text += heard.text
        if heard.text and self._tally.at_limit:
            out += self._end()
        return out

    def _count(self, heard: ParsedEvent) -> None:
        if heard.prompt is not None and not self._prompt_seen:
            self._tally.saw_prompt(heard.prompt)
            self._prompt_seen = True
        if heard.tokens is not None:
            self._tally.here = heard.tokens
        elif heard.step:
            self._tally.here += 1

    def _again(self, heard: ParsedEvent) -> bool:
        """Whether the client has it already, or has no use for it."""
        if heard.opening is None:
            return heard.progress
        again = self._said.begun or heard.opening in self._said.openings
        self._said.openings.add(heard.opening)
        return again and not heard.last

    def _end(self) -> bytes:
        """End the answer here: the engine was granted more than was left."""
        self.finished = True
        self._tally.here = (self._tally.limit or 0) - self._tally.before
        whole = replace(self._said, text=self._said.text + self._text)
        return self._dialect.end_events(whole, self._tally)


ResumePolicy = Literal["same-variant", "any", "off"]
"""Which engines may go on: those of the same variant, of the same model, or none."""

MIGRATIONS = 2
"""Times that one answer may go on elsewhere without growing: what ends one engine after
the other at the same place is the request itself."""

GROWTH = 4096
"""Bytes of events, some sixteen tokens, by which an answer has grown."""

MOST_MIGRATIONS = 8
"""Times that it may go on elsewhere in all."""


def policy_of(settings: BalancerSettings) -> ResumePolicy:
    """Take the policy from the settings."""
    match settings.resume:
        case "any" | "off" as policy:
            return policy
        case _:
            return "same-variant"


@dataclass(slots=True)
class ResumedStream:
    """Reads the engine that goes on; see `DialectStream`. Its content has begun."""

    splice: Splice
    begun: bool = True
    worked: bool = False
    prompt: int | None = None
    error: StreamedError | None = None

    @property
    def ended(self) -> bool:
        """Whether the client's answer is complete."""
        return self.splice.finished

    def feed(self, piece: bytes) -> bytes:
        """Return the events that the client gets."""
        out = self.splice.feed(piece)
        self.worked = self.worked or bool(out) or PROGRESS in piece
        if self.splice.error is not None and self.error is None:
            self.error = streamed_error(msgspec.json.encode(self.splice.error))
        return out


@dataclass(slots=True)
class ObservedStream:
    """A flow that is listened to; what it says is not changed."""

    flow: StreamReader
    course: AttemptObserver
    _wrote: bool = False
    _last: bytes = b""
    """The latest piece with timings or usage."""
    _first: bytes = b""
    """The one before it."""
    _whole: bool = False

    @property
    def begun(self) -> bool:
        """See `StreamReader`."""
        return self.flow.begun

    @property
    def worked(self) -> bool:
        """See `StreamReader`."""
        return self.flow.worked

    @property
    def prompt(self) -> int | None:
        """See `StreamReader`."""
        return self.flow.prompt

    @property
    def error(self) -> StreamedError | None:
        """See `StreamReader`."""
        return self.flow.error

    @property
    def ended(self) -> bool:
        """See `StreamReader`."""
        return self.flow.ended

    def feed(self, piece: bytes) -> bytes:
        """See `StreamReader.feed`."""
        if MARKS[0] in piece or MARKS[1] in piece:
            self._first, self._last = self._last, piece
        ready = self.flow.feed(piece)
        if not self._wrote:
            if PROGRESS in piece:
                self._tell_progress(piece)
            if ready and self.flow.begun:
                self._wrote = True
                self.course.wrote()
        return ready

    def whole(self, body: bytes) -> None:
        """An answer came that does not stream."""
        self._last, self._whole = body, True

    def answered(self) -> None:
        """The answer is complete."""
        self.course.answered(timings_in(self._last) or self._usage())

    def _usage(self) -> Timings | None:
        if self._whole:
            return usage_in(self._last)
        return usage_streamed(self._first + self._last)

    def _tell_progress(self, piece: bytes) -> None:
        found = progress_in(piece)
        if found is not None:
            self.course.progress(found.total, found.cache, found.processed)


def listener(work: InferenceRequest, id_: str, model: str) -> DialectStream:
    """Follow an answer of `model`; `id_` names one that has no name of its own.

    What is put together here needs a head that counts the prompt, and is asked again.
    """
    head = work.dialect.head(id_, model) if work.mode == "stream" else b""
    return DialectStream(
        work.dialect,
        hides=not work.tells,
        ends=work.ends,
        filtered=work.filtered,
        head=head,
    )
