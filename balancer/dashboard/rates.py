"""Rates: tokens/s of each engine, from how far answers have come. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from balancer.fleet.engines import EngineKey


class TokensWritten(msgspec.Struct, frozen=True):
    """How far a request's answer has come: tokens at the engine that writes it.

    `attempt` counts its attempts; `ended`: `tokens` are now those of the whole answer.
    """

    request: str
    attempt: int
    engine: EngineKey
    tokens: int
    ended: bool = False


@dataclass
class Rates:
    """Counts tokens from one measurement to the next; `at` is of the last one."""

    at: float
    _counted: dict[str, tuple[int, int, int]] = field(
        default_factory=dict[str, tuple[int, int, int]]
    )
    """For each request: its attempt, tokens of it, and tokens of all attempts."""

    def measured(
        self, now: float, answers: Iterable[TokensWritten]
    ) -> dict[EngineKey, float]:
        """Return tokens/s of each engine since the last measurement."""
        new, going = Counter[EngineKey](), dict[str, tuple[int, int, int]]()
        for each in answers:
            attempt, before, all_ = self._counted.get(
                each.request, (each.attempt, 0, 0)
            )
            if each.ended:
                new[each.engine] += max(0, each.tokens - all_)
                continue
            more = max(0, each.tokens - (before if attempt == each.attempt else 0))
            new[each.engine] += more
            going[each.request] = each.attempt, each.tokens, all_ + more
        seconds, self.at, self._counted = max(now - self.at, 1e-3), now, going
        return {key: tokens / seconds for key, tokens in new.items()}
