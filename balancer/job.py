"""One request at work on an engine, and what the engine reports of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from balancer.prefix import Prompt


@dataclass(slots=True, eq=False)
class Job:
    """One request at work. Seconds and tokens; `reading` is prefill still to be done.

    `slot` is where we believe it is; `others` are the further slots of a request that
    takes several. `depth` is how many blocks of it the slot held.
    """

    prompt: Prompt
    slot: int
    tokens: float
    cached: float
    answer: float
    started: float
    reading: float
    others: tuple[int, ...] = ()
    depth: int = 0
    first: float | None = None
    done: float = 0.0
    waited: float = 0.0
    stalled: float = 0.0
    crowd: float = 0.0


@dataclass(frozen=True, slots=True)
class Timings:
    """llama.cpp's `timings`: tokens and milliseconds."""

    cached: int
    prompt: int
    prompt_ms: float
    predicted: int
    predicted_ms: float
