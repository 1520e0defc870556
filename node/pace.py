"""How often a supervisor looks at things."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often things are looked at, in seconds, and a factor on back-off.

    llama.cpp notices that the caller of a non-streaming request has left only in a
    second without any other news, and a look at /metrics is news: never look oftener,
    but for the first moments after a client has `left`, which do for most streams.
    """

    ready: float = 0.1
    progress: float = 2.0
    pulse: float = 0.5
    left: tuple[float, ...] = (0.1, 0.3, 0.4)
    file: float = 5.0
    backoff: float = 1.0
