"""Dialect protocols: what each API format must offer to aggregate and resume. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from balancer.dialects.stream import ERRORS, streamed_error
from balancer.dialects.usage import TokenCount
from edgeserve.http.sse import DONE, Event

_AROUND = 16
"""More tokens than the marks around a block of reasoning take."""


class CannotResume(Exception):
    """This answer cannot be continued; the sentence says why."""


@dataclass(frozen=True, kw_only=True)
class ParsedEvent:
    """What one event says, in words common to all dialects.

    `opening` names what may come only once. `step`: a token was generated for it.
    `tokens`: tokens of the answer so far, as its engine counts. `prompt`: tokens of
    the prompt. `last`: it belongs to the end of the answer; `trailing`: it comes after
    the reason for that. `head`: names that the rest of the answer must keep.
    """

    opening: str | None = None
    text: str = ""
    reasoning: str = ""
    tool: bool = False
    step: bool = False
    tokens: int | None = None
    ids: tuple[int, ...] = ()
    prompt: int | None = None
    progress: bool = False
    last: bool = False
    trailing: bool = False
    head: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(kw_only=True)
class Transcript:
    """All that a client has been told by an answer that broke off.

    `tokens` stand behind `text` and `reasoning`; a lower bound unless the engine
    counted aloud. `ids` are their ids, None where not all are known. `head` holds the
    names the answer goes by. `ends` is how many answers have ended. `ended`: the
    reason for the end of each is out. `closed`: so is the last event.
    """

    text: str = ""
    reasoning: str = ""
    tokens: int = 0
    ids: tuple[int, ...] | None = ()
    prompt: int | None = None
    tool: bool = False
    openings: set[str] = field(default_factory=set[str])
    head: dict[str, Any] = field(default_factory=dict[str, Any])
    ends: int = 0
    ended: bool = False
    closed: bool = False

    @property
    def begun(self) -> bool:
        """Whether anything was generated that the client has seen."""
        return bool(self.text or self.reasoning)

    @property
    def most_tokens(self) -> int:
        """The most tokens that it can be: one a byte, and some around reasoning."""
        return len((self.text + self.reasoning).encode()) + _AROUND


class Dialect(Protocol):
    """One way to stream, for one request."""

    @property
    def budgets(self) -> tuple[str, ...]:
        """Fields that limit the answer's tokens, the one that counts first."""
        ...

    @property
    def answers(self) -> int:
        """How many answers the stream holds."""
        ...

    def hear(self, event: dict[str, Any]) -> ParsedEvent:
        """Say what an event means."""
        ...

    def closes(self, event: dict[str, Any]) -> bool:
        """Whether this event is the last; streams that end in `[DONE]` say False."""
        ...

    def continued(self, said: Transcript) -> dict[str, Any]:
        """Return the request that goes on from there, or raise Unfit."""
        ...

    def adopt(self, event: dict[str, Any], said: Transcript, tally: TokenCount) -> None:
        """Make another engine's event one of the answer the client already has."""
        ...

    def ending(self, said: Transcript, tally: TokenCount) -> bytes:
        """End an answer that has used up its tokens."""
        ...

    def closing(self, said: Transcript) -> bytes:
        """Send what is missing after the reason for the end."""
        ...


def listen(dialect: Dialect, given: Iterable[Event]) -> Transcript:
    """Put together what a client has been told. Raises Unfit where it is unclear."""
    said, pending = Transcript(), _Pending()
    for each in given:
        if each.data == DONE:
            said.ended = said.closed = True
        elif each.data:
            _add(dialect, said, pending, _decoded(each))
    return said


@dataclass
class _Pending:
    """Tokens that no text has come of yet: another engine will make them again."""

    tokens: int = 0
    ids: tuple[int, ...] | None = ()


def _decoded(each: Event) -> dict[str, Any]:
    try:
        event = decoded(each.data)
    except ValueError as error:
        raise CannotResume("the stream holds an event that is not JSON") from error
    if is_error(event):
        raise CannotResume("the stream already ended in an error")
    return event


def _add(
    dialect: Dialect, said: Transcript, pending: _Pending, event: dict[str, Any]
) -> None:
    heard = dialect.hear(event)
    said.head |= heard.head
    said.ends += heard.last and not heard.trailing
    said.ended = said.ended or said.ends >= dialect.answers
    said.closed = said.closed or (said.ended and dialect.closes(event))
    said.tool = said.tool or heard.tool
    if said.prompt is None:
        said.prompt = heard.prompt
    if heard.opening:
        said.openings.add(heard.opening)
    if heard.step:
        _count(pending, heard)
    if heard.text or heard.reasoning:
        said.text += heard.text
        said.reasoning += heard.reasoning
        said.tokens, said.ids = pending.tokens, pending.ids


def _count(pending: _Pending, heard: ParsedEvent) -> None:
    before = pending.tokens
    pending.tokens = heard.tokens if heard.tokens is not None else before + 1
    known = pending.ids is not None and len(heard.ids) == pending.tokens - before
    pending.ids = (*(pending.ids or ()), *heard.ids) if known else None


def decoded(data: bytes) -> dict[str, Any]:
    """Decode an event's data, or raise ValueError where it is no JSON object."""
    return msgspec.json.decode(data, type=dict[str, Any])


def is_error(data: dict[str, Any]) -> bool:
    """Whether an event says that the engine gave up."""
    return "error" in data or data.get("type") == "error"


Json = dict[str, Any]


class Incomplete(Exception):
    """The stream ended before the answer did."""


class Headless(Exception):
    """The stream is whole but lacks its beginning: the engine must be asked anew.

    llama.cpp sends a message's head with the first token, and no event for a token that
    is only a part of a character.
    """


class Aggregate(Protocol):
    """Takes a stream's events, gives the body of the answer."""

    def add(self, event: Event) -> None:
        """Take in one event. Raises StreamedError where it tells of an error."""
        ...

    def body(self) -> bytes:
        """Return the whole answer. Raises Incomplete or Headless."""
        ...


def data_of(event: Event) -> Json | None:
    """Decode an event; None for comments and end marks, StreamedError for errors."""
    if any(mark in b"\n" + event.raw for mark in ERRORS):
        raise streamed_error(event.data)
    if not event.data.startswith(b"{"):
        return None
    data: Json = msgspec.json.decode(event.data)
    return data


def encoded(body: Json | list[Json]) -> bytes:
    """Render an answer."""
    return msgspec.json.encode(body)
