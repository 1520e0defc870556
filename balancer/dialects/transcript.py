"""Transcripts: read back what a client has received of an answer. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from balancer.dialects.base import (
    CannotResume,
    Dialect,
    Json,
    ParsedEvent,
    Transcript,
    decoded,
    is_error,
)
from edgeserve.http.sse import DONE, Event


def read_transcript(dialect: Dialect, given: Iterable[Event]) -> Transcript:
    """Return what a client has received. Raises CannotResume where that is unclear."""
    transcript, pending = Transcript(), _Pending()
    for each in given:
        if each.data == DONE:
            transcript.ended = transcript.closed = True
        elif each.data:
            _add(dialect, transcript, pending, _decoded(each))
    return transcript


@dataclass
class _Pending:
    """Tokens without text so far: another engine will generate them again."""

    tokens: int = 0
    ids: tuple[int, ...] | None = ()


def _decoded(each: Event) -> Json:
    try:
        event = decoded(each.data)
    except ValueError as error:
        raise CannotResume("the stream holds an event that is not JSON") from error
    if is_error(event):
        raise CannotResume("the stream already ended in an error")
    return event


def _add(
    dialect: Dialect, transcript: Transcript, pending: _Pending, event: Json
) -> None:
    parsed = dialect.parse(event)
    transcript.head |= parsed.head
    transcript.ends += parsed.last and not parsed.trailing
    transcript.ended = transcript.ended or transcript.ends >= dialect.answers
    transcript.closed = transcript.closed or (
        transcript.ended and dialect.is_last(event)
    )
    transcript.tool = transcript.tool or parsed.tool
    if transcript.prompt is None:
        transcript.prompt = parsed.prompt
    if parsed.opening:
        transcript.openings.add(parsed.opening)
    if parsed.step:
        _count(pending, parsed)
    if parsed.text or parsed.reasoning:
        transcript.text += parsed.text
        transcript.reasoning += parsed.reasoning
        transcript.tokens, transcript.ids = pending.tokens, pending.ids


def _count(pending: _Pending, parsed: ParsedEvent) -> None:
    before = pending.tokens
    pending.tokens = parsed.tokens if parsed.tokens is not None else before + 1
    known = pending.ids is not None and len(parsed.ids) == pending.tokens - before
    pending.ids = (*(pending.ids or ()), *parsed.ids) if known else None
