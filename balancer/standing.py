"""Who gets requests, in which order, and who gets none. Pure.

A breaker that is wrong about everybody must not stop the service: never more than half
of the capacity is shut out, and never the last engine. Those that are kept in only for
that reason come last, after every suspect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from balancer.health import Health

Rank = Literal[0, 1, 2, 3]
GOOD: Rank = 0
SUSPECT: Rank = 1
LAST_RESORT: Rank = 2
OUT: Rank = 3

Key = TypeVar("Key")

SHUT_OUT_AT_MOST = 0.5
"""Share of the slots."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One engine's place: a lower `rank` goes first, whatever its load.

    `usable` is how many of its slots may be taken, `risk` the share of failures to
    expect, 0 to 1.
    """

    rank: Rank
    usable: int
    risk: float


def standings(
    records: Mapping[Key, Health], slots: Mapping[Key, int], now: float
) -> dict[Key, Standing]:
    """Return everybody's standing. `slots` counts each one's capacity."""
    out = _shut_out(records, slots)
    return {
        key: _standing(health, slots[key], now, out=key in out)
        for key, health in records.items()
    }


def worse(one: Health, other: Health) -> Health:
    """Return whichever of an engine's health and its node's is the worse."""
    return max(one, other, key=_badness)


def _standing(health: Health, slots: int, now: float, *, out: bool) -> Standing:
    if out:
        return Standing(OUT, 0, 1.0)
    if not health.closed:
        return Standing(LAST_RESORT, slots, 1.0)
    rank = SUSPECT if health.state == "suspect" else GOOD
    return Standing(rank, health.usable(slots, now), health.risk)


def _shut_out(records: Mapping[Key, Health], slots: Mapping[Key, int]) -> set[Key]:
    """Choose the worst, as far as half of the capacity goes."""
    total = sum(slots[key] for key in records)
    broken = [key for key, health in records.items() if not health.closed]
    out, gone = set[Key](), 0
    for key in sorted(broken, key=lambda key: _badness(records[key]), reverse=True):
        if gone + slots[key] <= total * SHUT_OUT_AT_MOST:
            out.add(key)
            gone += slots[key]
    if len(out) == len(records) and out:
        out.remove(min(out, key=lambda key: _badness(records[key])))
    return out


def _badness(health: Health) -> tuple[bool, int, bool, float, float]:
    return (
        not health.closed,
        health.opened,
        health.state == "suspect",
        health.risk,
        -health.since,
    )
