"""Dialect: the interface that each API format implements, and its types. Pure."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import msgspec

from balancer.dialects.usage import TokenCount
from edgeserve.errors import EdgeserveError
from edgeserve.http.sse import Event, write_event
from edgeserve.openai import RequestFields
from edgeserve.served import Continued

Json = dict[str, Any]

OutputFormat = Literal["response_format", "json_schema", "text"]
"""How a request asks for JSON: by `response_format`; the same, which llama.cpp takes
on this route as `json_schema` only; by `text`, which it takes as `response_format`."""

ERRORS = (b'\ndata: {"error"', b"\nevent: error")
"""How llama.cpp reports an error inside a stream, and then ends it."""

_AROUND = 16
"""More tokens than the marks around a block of reasoning take."""


class Incomplete(Exception):
    """The stream ended before the answer did."""


class Headless(Exception):
    """The stream is complete but lacks its head: the engine must be asked again.

    llama.cpp sends the head of a message with the text of the first token, and no event
    for a token that is only a part of a character.
    """


class Aggregate(Protocol):
    """Builds the body of an answer from the events of a stream."""

    def add(self, event: Event) -> None:
        """Add one event. Raises StreamedError where the event reports an error."""
        ...

    def body(self) -> bytes:
        """Return the body. Raises Incomplete or Headless."""
        ...


class StreamedError(Exception):
    """The engine's own error inside a stream; `raw` is the event."""

    def __init__(self, status: int, body: bytes, raw: bytes = b"") -> None:
        super().__init__(f"the engine answered {status} inside its stream")
        self.status = status
        self.body = body
        self.raw = raw


class CannotResume(Exception):
    """The answer cannot be continued; the message says why."""


class ParsedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The content of one event, in the same fields for all dialects.

    `opening`: the name of an event that may come only once. `step`: a token was
    generated for the event. `tokens`: tokens of the answer so far, as the engine
    counts. `prompt`: tokens of the prompt. `last`: the event belongs to the end of the
    answer; `trailing`: it comes after the finish reason. `head`: names that the rest of
    the answer must keep.
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
    head: Mapping[str, Any] = {}


@dataclass(kw_only=True)
class Transcript:
    """All that a client has received of an answer that broke off.

    `tokens`: the tokens of `text` and `reasoning`, a lower bound unless the engine
    reports counts. `ids`: their ids, None where not all are known. `head`: the names
    of the answer. `ends`: how many answers have ended. `ended`: the finish reason of
    each was sent. `closed`: so was the last event.
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
        """Whether the client has received generated text."""
        return bool(self.text or self.reasoning)

    @property
    def most_tokens(self) -> int:
        """The most tokens it can have: one per byte, and the marks around reasoning."""
        return len((self.text + self.reasoning).encode()) + _AROUND


class Dialect(ABC):
    """One API format. An instance reads and continues the answer to one request.

    `streams`: its answers can be streams. `reports_progress`: they can say how far the
    prompt is read, in events that stand alone. `keeps_progress_event`: such an event
    has a meaning of its own and reaches the client without the progress.
    `usage_on_request`: the usage is streamed only on request. `templated`: a chat
    template makes the prompt.

    `end_marks`: what the last event looks like; quotes and line ends inside JSON
    strings are escaped, so that no text can look like it. `end_hint`: bytes that each
    piece with an end contains. `quiet`: types of events without content.

    `any_tool`, `no_tool`: the `tool_choice` for some tool and for none, None where
    llama.cpp needs no translation. `output_format`: see `OutputFormat`.
    `has_echo`: the format has `echo`, `suffix` and `best_of`, which llama.cpp lacks.
    `unsupported`: fields that llama.cpp ignores, and what to do instead.
    """

    streams: ClassVar[bool] = True
    reports_progress: ClassVar[bool] = True
    keeps_progress_event: ClassVar[bool] = False
    usage_on_request: ClassVar[bool] = False
    templated: ClassVar[bool] = False

    end_marks: ClassVar[tuple[bytes, ...]] = ()
    end_hint: ClassVar[bytes] = b""
    quiet: ClassVar[frozenset[str]] = frozenset()

    any_tool: ClassVar[object] = None
    no_tool: ClassVar[object] = None
    output_format: ClassVar[OutputFormat | None] = None
    has_echo: ClassVar[bool] = False
    unsupported: ClassVar[Mapping[str, str]] = {}

    budgets: ClassVar[tuple[str, ...]] = ()
    """Fields that limit the answer's tokens, the one that counts first."""

    answers: int = 1
    """How many answers the stream holds."""

    wants_usage: bool = True
    """Whether the client asked for the usage, or gets it anyway."""

    @abstractmethod
    def __init__(self, request: Json) -> None:
        """Read the answer to this request."""

    # The class describes the streams.

    @classmethod
    def resumed_by(cls) -> Continued:
        """Return how an answer goes on at another engine."""
        return "chat" if cls.templated else "completion"

    @classmethod
    def has_content(cls, name: str, data: Json) -> bool:
        """Whether an event has content, which must reach the client exactly once."""
        return (name or data.get("type")) not in cls.quiet

    @classmethod
    def ends(cls, request: RequestFields) -> int:
        """How many ends a stream has: one, or one for each answer."""
        del request
        return 1

    @classmethod
    def ends_in(cls, events: bytes, *, filtered: bool) -> int:
        """Count the ends in whole events.

        `filtered`: the last event may lack the field that marks an end.
        """
        del filtered
        return int(has_mark(cls.end_marks, events))

    @classmethod
    def filters_end(cls, request: RequestFields) -> bool:
        """Whether the request may filter the mark of an end out of the last event."""
        del request
        return False

    @classmethod
    def head(cls, id_: str, model: str) -> bytes:
        """Write the first event, where an engine may leave it out; else nothing."""
        del id_, model
        return b""

    @classmethod
    def error_event(cls, error: EdgeserveError, request_id: str = "") -> bytes:
        """Write the event that reports why the rest of the answer is missing."""
        del request_id
        return write_event({"error": error.envelope()})

    @classmethod
    @abstractmethod
    def aggregate(cls) -> Aggregate:
        """Return an empty aggregate."""

    # An instance continues the answer to one request on another engine.

    @abstractmethod
    def parse(self, event: Json) -> ParsedEvent:
        """Return the content of an event."""

    def is_last(self, event: Json) -> bool:
        """Whether this event is the last; False where `[DONE]` comes last."""
        del event
        return False

    @abstractmethod
    def continued(self, transcript: Transcript) -> Json:
        """Return the request that continues the answer, or raise CannotResume."""

    @abstractmethod
    def adapt(self, event: Json, transcript: Transcript, count: TokenCount) -> None:
        """Make another engine's event one of the answer the client already has."""

    @abstractmethod
    def end_events(self, transcript: Transcript, count: TokenCount) -> bytes:
        """Write the end of an answer that has used up its tokens."""

    @abstractmethod
    def closing_events(self, transcript: Transcript) -> bytes:
        """Write what is missing after the reason for the end."""


class Plain(Dialect):
    """Answers that never stream: embeddings, rankings, token counts."""

    streams = False
    reports_progress = False


def has_mark(marks: Iterable[bytes], events: bytes) -> bool:
    """Whether one of the marks, which begin with a line end, is in whole events."""
    lines = b"\n" + events
    return any(mark in lines for mark in marks)


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


def decoded(data: bytes) -> Json:
    """Decode an event's data, or raise ValueError where it is no JSON object."""
    return msgspec.json.decode(data, type=Json)


def is_error(data: Json) -> bool:
    """Whether an event says that the engine gave up."""
    return "error" in data or data.get("type") == "error"


def data_of(event: Event) -> Json | None:
    """Decode an event, None for comments and end marks. Raises StreamedError."""
    if has_mark(ERRORS, event.raw):
        raise streamed_error(event.data)
    if not event.data.startswith(b"{"):
        return None
    data: Json = msgspec.json.decode(event.data)
    return data


def encoded(body: Json | list[Json]) -> bytes:
    """Render an answer."""
    return msgspec.json.encode(body)
