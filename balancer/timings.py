"""Finds llama.cpp's `timings` in an answer's bytes, however it is spaced. Pure."""

from __future__ import annotations

import re

import msgspec

from balancer.job import Timings

MARK = b'"timings"'
"""Quotes inside JSON strings are escaped: of texts, only this very word looks so."""

_OBJECT = re.compile(rb'"timings"\s*:\s*(\{[^{}]*\})')


class _Timings(msgspec.Struct):
    prompt_n: int
    prompt_ms: float
    predicted_n: int
    predicted_ms: float
    cache_n: int = 0


_decoder = msgspec.json.Decoder(_Timings)


def timings_in(answer: bytes) -> Timings | None:
    """Return the last ones, None where there are none that make sense."""
    if MARK not in answer:
        return None
    last = None
    for last in _OBJECT.finditer(answer):  # noqa: B007 - the last one counts
        pass
    try:
        found = _decoder.decode(last[1] if last else b"")
    except msgspec.DecodeError:
        return None
    return Timings(
        found.cache_n,
        found.prompt_n,
        found.prompt_ms,
        found.predicted_n,
        found.predicted_ms,
    )
