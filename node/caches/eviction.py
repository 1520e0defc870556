"""Eviction: which saved states go when there is no room. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgeserve.orders.caches import SavedState

HALF_LIFE = 6 * 3600.0
"""Seconds without use that halve what a state is worth."""

OLDEST = 7 * 24 * 3600.0
"""Seconds without use after which a state goes in any case."""


@dataclass(frozen=True, kw_only=True)
class KeptState:
    """A state on the disk: which model file it is of, and when it was last used."""

    state: SavedState
    file: str
    used: float


def leaving(
    kept: Iterable[KeptState], limit: int, now: float, *, but: str = ""
) -> list[KeptState]:
    """Return what has to go so that the rest takes at most `limit` bytes.

    First goes what spares fewest seconds of reading for each byte, the longer it was
    not used the sooner. The state `but` stays.
    """
    rest = sorted(kept, key=lambda each: _value(each, now))
    gone = [each for each in rest if now - each.used > OLDEST and each.state.id != but]
    rest = [each for each in rest if each not in gone]
    total = sum(each.state.size for each in rest)
    for each in rest:
        if total <= limit:
            break
        if each.state.id != but:
            gone.append(each)
            total -= each.state.size
    return gone


def _value(kept: KeptState, now: float) -> float:
    age = max(0.0, now - kept.used)
    worth = max(kept.state.worth, 0.001)
    return float(worth / kept.state.size * 0.5 ** (age / HALF_LIFE))
