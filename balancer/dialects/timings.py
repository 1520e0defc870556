"""Timings: read llama.cpp's timings, usage and progress from an answer. Pure.

llama.cpp sends no `timings` on /v1/messages, nor with a whole answer of /v1/responses;
their `usage` has at least the number of tokens.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import structs

from edgeserve.wire import MALFORMED


class Timings(msgspec.Struct, frozen=True):
    """llama.cpp's `timings`: tokens and milliseconds.

    `tells_cached`: `cached` was counted; else nothing is known of it.
    """

    cached: int
    prompt: int
    prompt_ms: float
    predicted: int
    predicted_ms: float
    tells_cached: bool = True


PROGRESS = b'"prompt_progress":{'
TIMINGS, USAGE = b'"timings"', b'"usage":{'
"""Quotes inside JSON strings are escaped: only the text `timings` looks like these."""

MOST_TOKENS = 2**31
"""Tokens of one answer; a larger count is nonsense, from which nothing may learn."""

_OBJECT = re.compile(rb'"timings"\s*:\s*(\{[^{}]*\})')


class _Timings(msgspec.Struct):
    prompt_n: int
    prompt_ms: float
    predicted_n: int
    predicted_ms: float
    cache_n: int = 0


class PromptProgress(msgspec.Struct):
    """Tokens of a prompt: all, those found cached, those read by now."""

    total: int
    processed: int
    cache: int = 0


class _Details(msgspec.Struct):
    cached_tokens: int = 0


class _Usage(msgspec.Struct):
    """Usage of /v1/messages, where `input_tokens` excludes the cache; /v1/responses."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int = 0
    input_tokens_details: _Details = msgspec.field(default_factory=_Details)


class _Answer(msgspec.Struct):
    usage: _Usage


class _OpenAIUsage(msgspec.Struct):
    """Usage in OpenAI's format; embeddings and ranks have only `prompt_tokens`."""

    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _OpenAIAnswer(msgspec.Struct):
    usage: _OpenAIUsage


_COUNT = re.compile(
    rb'"(input_tokens|output_tokens|cache_read_input_tokens)"\s*:\s*(\d{1,18})'
)

_decoder = msgspec.json.Decoder(_Timings)
_progress = msgspec.json.Decoder(PromptProgress)
_answers = msgspec.json.Decoder(_Answer)
_openai = msgspec.json.Decoder(_OpenAIAnswer)


def timings_in(answer: bytes) -> Timings | None:
    """Return the last timings, None where there are no valid ones."""
    at, last = len(answer), None
    while last is None:
        if (at := answer.rfind(TIMINGS, 0, at)) < 0:
            return None
        last = _OBJECT.match(answer, at)
    try:
        found = _decoder.decode(last[1])
    except MALFORMED:
        return None
    if max(found.cache_n, found.prompt_n, found.predicted_n) > MOST_TOKENS:
        return None
    return Timings(
        found.cache_n,
        found.prompt_n,
        found.prompt_ms,
        found.predicted_n,
        found.predicted_ms,
    )


def progress_in(piece: bytes) -> PromptProgress | None:
    """Return how far the prompt is read, None where the object is not valid."""
    start = piece.rfind(PROGRESS) + len(PROGRESS) - 1
    try:
        return _progress.decode(piece[start : piece.find(b"}", start) + 1])
    except MALFORMED:
        return None


def usage_in(body: bytes) -> Timings | None:
    """Read the usage of a whole answer; times are 0, which means unknown."""
    try:
        usage = _answers.decode(body).usage
    except MALFORMED:
        return _usage_of_openai(body)
    cached = usage.input_tokens_details.cached_tokens
    return _counted(
        usage.cache_read_input_tokens + cached,
        usage.input_tokens - cached,
        usage.output_tokens,
    )


def _usage_of_openai(body: bytes) -> Timings | None:
    try:
        return _openai_counted(_openai.decode(body).usage)
    except MALFORMED:
        return None


def openai_usage(usage: dict[str, Any]) -> Timings | None:
    """Read a `usage` object in OpenAI's format; times are 0, which means unknown."""
    try:
        return _openai_counted(msgspec.convert(usage, _OpenAIUsage))
    except msgspec.ValidationError:
        return None


def _openai_counted(usage: _OpenAIUsage) -> Timings | None:
    details = usage.prompt_tokens_details
    cached = min(details.cached_tokens, usage.prompt_tokens) if details else 0
    counted = _counted(cached, usage.prompt_tokens - cached, usage.completion_tokens)
    if details or counted is None:
        return counted
    return structs.replace(counted, tells_cached=False)


def usage_streamed(events: bytes) -> Timings | None:
    """Read the usage from the first and the last events of a streamed message."""
    found = {name: int(count) for name, count in _COUNT.findall(events)}
    if len(found) < len(_Usage.__struct_fields__) - 1:
        return None
    cached, read = found[b"cache_read_input_tokens"], found[b"input_tokens"]
    return _counted(cached, read, found[b"output_tokens"])


def _counted(cached: int, prompt: int, predicted: int) -> Timings | None:
    if max(cached, prompt, predicted) > MOST_TOKENS:
        return None
    return Timings(max(0, cached), max(0, prompt), 0.0, max(0, predicted), 0.0)
