"""Stream reader: finds where content begins, where it ends, and errors. Pure.

Everything else passes unchanged. Only the events before the first content are parsed
one by one; after it, each piece is only searched for the mark of an end.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import ClassVar, Protocol

import msgspec

from balancer.dialects.base import (
    ERRORS,
    Dialect,
    StreamedError,
    decoded,
    has_mark,
    streamed_error,
)
from balancer.dialects.timings import (
    PROGRESS,
    TIMINGS,
    USAGE,
    Timings,
    progress_in,
    timings_in,
    usage_in,
    usage_streamed,
)
from edgeserve.http.sse import END, Event, parse_event, raw_events, whole_events
from edgeserve.wire import MALFORMED

_PROGRESS_FIELD = re.compile(rb',"prompt_progress":\{[^}]*\}')
CUT_SHORT = "the stream ended before the answer did"
KEEP_ALIVE = b":\n\n"
"""A comment: the connection is alive."""


class StreamObserver(Protocol):
    """What a reader reports while it reads; see `Send`."""

    def progress(self, total: int, cached: int, processed: int) -> None:
        """The engine has read so many tokens of the prompt."""
        ...

    def wrote(self) -> None:
        """Content has begun."""
        ...


class StreamReader(msgspec.Struct, kw_only=True):
    """Reads one answer; reports to `observer` what the engine has done.

    `begun`: content has come. `ended`: the answer is complete. `worked`: the engine
    has reported progress. `prompt`: how many tokens it reads, if reported.
    `error`: the error that ended the answer after content; it is not passed on.
    `cut_short`: what is said where it has no end.
    `signals_head`: the head of the answer shows that the engine has begun.
    """

    signals_head: ClassVar[bool] = True
    cut_short: ClassVar[str] = CUT_SHORT

    observer: StreamObserver | None = None
    begun: bool = False
    ended: bool = False
    worked: bool = False
    prompt: int | None = None
    error: StreamedError | None = None
    _whole: bool = False
    _counted: tuple[bytes, bytes] = (b"", b"")
    """The latest two pieces with timings or usage."""

    @abstractmethod
    def feed(self, piece: bytes) -> bytes:
        """Return what the client may get now."""

    def finish(self) -> bytes:
        """Take the end of the body; return what the stream lacks, if it is whole."""
        return b""

    def whole(self, body: bytes) -> None:
        """Take an answer that does not stream."""
        self._counted, self._whole = (b"", body), True

    def timings(self) -> Timings | None:
        """Return the timings of a complete answer, where the engine gave any."""
        before, last = self._counted
        if (found := timings_in(last)) is not None:
            return found
        return usage_in(last) if self._whole else usage_streamed(before + last)

    def note_progress(self, piece: bytes) -> None:
        """Report how far the engine has read."""
        self.worked = True
        if (found := progress_in(piece)) is None:
            return
        if self.prompt is None:
            self.prompt = found.total
        if self.observer is not None:
            self.observer.progress(found.total, found.cache, found.processed)

    def note_content(self) -> None:
        """Report that content has begun."""
        self.begun = True
        if self.observer is not None:
            self.observer.wrote()


class DialectStream(StreamReader):
    """Reads one answer of one dialect.

    `hides`: the progress is for the balancer only; the client did not ask for it.
    `ends`: how many ends the stream has, `filtered`: see `Dialect.filters_end`.
    `head`: the first event, for a stream that begins without one.
    """

    dialect: type[Dialect]
    hides: bool = False
    ends: int = 1
    filtered: bool = False
    head: bytes = b""
    _ends: int = 0
    _rest: bytes = b""
    _held: list[bytes] = []

    def feed(self, piece: bytes) -> bytes:
        """Return the whole events that may go out now.

        Before content has begun these are keep-alives only; the rest is held back, so
        that another node may still answer instead. Raises StreamedError there.
        """
        ready = piece
        if self._rest or not piece.endswith(END):
            ready, self._rest = whole_events(self._rest + piece)
        if TIMINGS in ready or USAGE in ready:
            self._counted = (self._counted[1], ready)
        if not self.begun or (self.hides and PROGRESS in ready):
            ready = b"".join(map(self._sendable, raw_events(ready)))
        return self._until_end(ready) if self.begun else ready

    def _sendable(self, raw: bytes) -> bytes:
        """Return what may go out after one more event.

        With several answers, one prompt may be read while another answer is written.
        """
        if self.begun:
            return b"" if self.hides and PROGRESS in raw else raw
        each = parse_event(raw)
        if PROGRESS in each.data:
            first = not self.worked
            self.note_progress(each.data)
            if self.hides and first and self.dialect.keeps_progress_event:
                # Without its progress it is an event that every stream has once.
                self._held.append(_PROGRESS_FIELD.sub(b"", raw))
            return b"" if self.hides else raw
        if each.comment:
            return raw
        if each.data == b"null":
            return b""  # llama.cpp's first result where it has no text
        if has_mark(ERRORS, raw):
            raise streamed_error(each.data)
        self._held.append(raw)
        if not self._has_content(each):
            return b""
        self.note_content()
        return self._beginning()

    def _has_content(self, each: Event) -> bool:
        try:
            return self.dialect.has_content(each.name, decoded(each.data))
        except MALFORMED:
            return True

    def _beginning(self) -> bytes:
        """Return what was held back, after the head if the engine left it out."""
        mark = self.head[: self.head.find(b"\n") + 1]
        missing = not any(raw.startswith(mark) for raw in self._held)
        return b"".join([self.head, *self._held] if missing else self._held)

    def _until_end(self, ready: bytes) -> bytes:
        """Look for an end; `end_hint` rules most pieces out."""
        if self.error is not None:
            return b""
        if b'"error"' in ready and has_mark(ERRORS, ready):
            return self._until_error(ready)
        if self.filtered or (self.dialect.end_hint in ready and not self.ended):
            self._ends += self.dialect.ends_in(ready, filtered=self.filtered)
            self.ended = self._ends >= self.ends
        return ready

    def _until_error(self, ready: bytes) -> bytes:
        passed = b""
        for raw in raw_events(ready):
            if has_mark(ERRORS, raw):
                self.error = streamed_error(parse_event(raw).data, raw)
                return passed
            passed += raw
        return passed
