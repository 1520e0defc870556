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


def _decoded(each: Event) -> Json:
    try:
        event = decoded(each.data)
    except ValueError as error:
        raise CannotResume("the stream holds an event that is not JSON") from error
    if is_error(event):
        raise CannotResume("the stream already ended in an error")
    return event


def _add(dialect: Dialect, said: Transcript, pending: _Pending, event: Json) -> None:
    heard = dialect.parse(event)
    said.head |= heard.head
    said.ends += heard.last and not heard.trailing
    said.ended = said.ended or said.ends >= dialect.answers
    said.closed = said.closed or (said.ended and dialect.is_last(event))
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
