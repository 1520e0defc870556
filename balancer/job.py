"""One request at work on an engine, and what the engine reports of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from balancer.prefix import Prompt

LIKELY_LEFT = 0.35
"""An answer that is longer than expected probably has this part of it still to come."""


@dataclass(slots=True)
class Sums:
    """What has happened on an engine since it was first seen.

    `tokens` is what each answer under way has got, `crowd` the seconds of all answers
    together, `reading` the seconds in which some prompt was read.
    """

    tokens: float = 0.0
    crowd: float = 0.0
    reading: float = 0.0


@dataclass(slots=True, eq=False)
class Job:
    """One request at work. Seconds and tokens; `reading` is prefill still to be done.

    `slot` is where we believe it is; `others` are the further slots of a request that
    takes several. `depth` is how many blocks of it the slot held. `own` is how long its
    prompt was the one that was read, `waited` how long another was.

    While it reads, `turn` is its engine's `Sums.reading` when it began; once it writes,
    `at` are all of its engine's sums at the first token. After that `waited` holds;
    `done`, `crowd` and `stalled` do once it is settled.
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
    own: float = 0.0
    turn: float = 0.0
    at: Sums | None = None
    done: float = 0.0
    waited: float = 0.0
    stalled: float = 0.0
    crowd: float = 0.0

    def left(self, tokens: float) -> float:
        """Tokens of its answer to come, by its engine's sum of them."""
        done = 0.0 if self.at is None else tokens - self.at.tokens
        return max(self.answer - done, LIKELY_LEFT * self.answer)

    def wrote(self, now: float, sums: Sums) -> None:
        """Its first token came."""
        self.waited = sums.reading - self.turn - self.own
        self.first, self.reading = now, 0.0
        self.at = Sums(sums.tokens, sums.crowd, sums.reading)

    def settle(self, sums: Sums) -> None:
        """Reckon up what happened to it."""
        if self.at is None:
            self.waited = sums.reading - self.turn - self.own
            return
        self.done = sums.tokens - self.at.tokens
        self.crowd = sums.crowd - self.at.crowd
        self.stalled = sums.reading - self.at.reading


@dataclass(frozen=True, slots=True)
class Timings:
    """llama.cpp's `timings`: tokens and milliseconds."""

    cached: int
    prompt: int
    prompt_ms: float
    predicted: int
    predicted_ms: float
