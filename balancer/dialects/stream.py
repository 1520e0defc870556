"""Stream reader: where content begins, how a stream ends, and error events. Pure.

Everything else passes as it is. Only the events before the first content are read one
by one; after it, an event is looked at for the mark of an end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from balancer.dialects.base import (
    ERRORS,
    Dialect,
    StreamedError,
    decoded,
    has_mark,
    streamed_error,
)
from edgeserve.http.sse import END, Event, parse_event, raw_events, whole_events

PROGRESS = b'"prompt_progress":{'
_TOLD = re.compile(rb',"prompt_progress":\{[^}]*\}')
LIFE = b":\n\n"
"""A comment: it says nothing but that somebody is there."""


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

    dialect: type[Dialect]
    hides: bool = False
    ends: int = 1
    filtered: bool = False
    head: bytes = b""
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
            if self.hides and first and self.dialect.keeps_progress_event:
                # Which is an event of its own, that comes once in any case.
                self._held.append(_TOLD.sub(b"", raw))
            return b"" if self.hides else raw
        if each.comment:
            return raw
        if each.data == b"null":
            return b""  # what llama.cpp makes of a first result without text
        if has_mark(ERRORS, raw):
            raise streamed_error(each.data)
        self._held.append(raw)
        self.begun = self._has_content(each)
        return self._beginning() if self.begun else b""

    def _has_content(self, each: Event) -> bool:
        try:
            return self.dialect.has_content(each.name, decoded(each.data))
        except msgspec.DecodeError:
            return True

    def _beginning(self) -> bytes:
        """Return what was held back, behind the head that the engine left out."""
        mark = self.head[: self.head.find(b"\n") + 1]
        missing = not any(raw.startswith(mark) for raw in self._held)
        return b"".join([self.head, *self._held] if missing else self._held)

    def _note_progress(self, data: bytes) -> None:
        self.worked = True
        if self.prompt is None:
            self.prompt = _total(data)

    def _until_end(self, ready: bytes) -> bytes:
        """Look for an end; most pieces show at a glance that they hold none."""
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


def _total(data: bytes) -> int | None:
    try:
        total = msgspec.json.decode(data, type=dict[str, Any])["prompt_progress"][
            "total"
        ]
    except (msgspec.DecodeError, LookupError, TypeError):
        return None
    return total if isinstance(total, int) else None
