"""Circuit breakers: which engines get requests after failures.

Breakers that are wrong about every engine must not stop the service: never more than
half of the capacity is shut out, and never the last engine. Engines that are kept in
only for that reason come last, after every suspect.

An engine that joins is trusted: a failure or two can be mended elsewhere. State is kept
only for those that failed, until they have proved themselves; see `circuit`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from balancer.fleet.engines import EngineCandidate, EngineKey
from balancer.health.circuit import Circuit
from balancer.health.faults import Fault
from edgeserve.wire import EngineReport

Rank = Literal[0, 1, 2, 3]
GOOD: Rank = 0
SUSPECT: Rank = 1
LAST_RESORT: Rank = 2
OUT: Rank = 3

Key = TypeVar("Key")

SHUT_OUT_AT_MOST = 0.5
"""Share of the slots."""


@dataclass(frozen=True, slots=True)
class HealthRank:
    """One engine's place: a lower `rank` goes first, whatever its load.

    `usable` is how many of its slots may be taken, `risk` the share of failures to
    expect, 0 to 1.
    """

    rank: Rank
    usable: int
    risk: float


def standings(
    records: Mapping[Key, Circuit], slots: Mapping[Key, int], now: float
) -> dict[Key, HealthRank]:
    """Return everybody's standing. `slots` counts each one's capacity."""
    out = _shut_out(records, slots)
    return {
        key: _standing(health, slots[key], now, out=key in out)
        for key, health in records.items()
    }


def worse(one: Circuit, other: Circuit) -> Circuit:
    """Return whichever of an engine's health and its node's is the worse."""
    return max(one, other, key=_badness)


def _standing(health: Circuit, slots: int, now: float, *, out: bool) -> HealthRank:
    if out:
        return HealthRank(OUT, 0, 1.0)
    if not health.closed:
        return HealthRank(LAST_RESORT, slots, 1.0)
    rank = SUSPECT if health.state == "suspect" else GOOD
    return HealthRank(rank, health.usable(slots, now), health.risk)


def _shut_out(records: Mapping[Key, Circuit], slots: Mapping[Key, int]) -> set[Key]:
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


def _badness(health: Circuit) -> tuple[bool, int, bool, float, float]:
    return (
        not health.closed,
        health.opened,
        health.state == "suspect",
        health.risk,
        -health.since,
    )


TRUSTED = Circuit(state="ready")
FAILED_SECONDS = 10.0
"""How long to wait for an engine that its node starts again, if nobody else serves."""

OUT_FOR_NOW = "it failed a moment ago; a probe is to show whether it is well"

CircuitKey = EngineKey | str
"""Names an engine, or a node by its member id."""


class CircuitBreakers:
    """Takes in what becomes of requests; says which engines get the next ones.

    `changed` is called when an engine's standing has.
    """

    def __init__(
        self,
        changed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._changed = changed
        self._clock = clock
        self._jitter = jitter
        self._health: dict[CircuitKey, Circuit] = {}
        self._fleet: dict[EngineKey, EngineCandidate] = {}
        self._standings: dict[EngineKey, HealthRank] = {}
        self._failed: dict[EngineKey, float] = {}
        self._lost = set[EngineKey]()

    def judged(
        self, candidates: Sequence[EngineCandidate]
    ) -> tuple[EngineCandidate, ...]:
        """Add to each candidate what its health says."""
        self._follow(candidates)
        self._standings = self._stand()
        return tuple(map(self._marked, candidates))

    @property
    def reserved(self) -> dict[EngineKey, int]:
        """Slots that are not to be taken yet: whoever recovers starts slowly."""
        return {
            key: self._fleet[key].engine.slots - each.usable
            for key, each in self._standings.items()
        }

    def shown(self, member: str) -> dict[str, str]:
        """Say of a node's engines, by id, how they are, where they are not well."""
        return {
            key[1]: self.health(key).state
            for key in self._fleet
            if key[0] == member and not self.health(key).trusted
        }

    def health(self, key: EngineKey) -> Circuit:
        """Return an engine's health, or its node's where that is worse."""
        engine = self._health.get(key, TRUSTED)
        node = self._health.get(key[0])
        return engine if node is None else worse(engine, node)

    def engine(self, key: EngineKey) -> EngineReport | None:
        """Return the latest word on an engine."""
        each = self._fleet.get(key)
        return None if each is None else each.engine

    def answered(self, key: EngineKey) -> None:
        """Take in a request that was answered."""
        if self._health:
            now = self._clock()
            self._note((key, key[0]), lambda each: each.succeeded(now))

    def failed(self, key: EngineKey, fault: Fault) -> None:
        """Take in a failure, and whose fault it was."""
        if fault == "none":
            return
        now, jitter = self._clock(), self._jitter()
        whose: CircuitKey = key[0] if fault == "node" else key
        self._health.setdefault(whose, TRUSTED)
        if fault == "doubt":
            self._note((whose,), lambda each: each.doubted(now))
        else:
            self._note((whose,), lambda each: each.failed(now, jitter))

    def question(self, key: EngineKey) -> None:
        """Have an engine probed, to which users' requests go on as before."""
        now = self._clock()
        self._health.setdefault(key, TRUSTED)
        self._note((key,), lambda each: each.questioned(now))

    def probed(self, key: EngineKey, *, well: bool) -> None:
        """Take in what became of a probe of an engine, and so of its node."""
        now, jitter = self._clock(), self._jitter()
        self._note(
            (key, key[0]), lambda each: each.probed(well=well, now=now, jitter=jitter)
        )

    def due(self) -> list[EngineCandidate]:
        """List the engines to probe now, and count it as done."""
        now = self._clock()
        due = [
            each
            for each in self._fleet.values()
            if each.barred is None and self._wants(each.key, now)
        ]
        for each in due:
            self._note((each.key, each.member), lambda health: health.probing(now))
        return due

    def tick(self) -> None:
        """Let time pass: a slow start ends by itself."""
        if self._failed and self._given_up() != self._lost:
            self._changed()
        if self._health:
            self._note((), lambda each: each)

    def _wants(self, key: EngineKey, now: float) -> bool:
        mine = (self._health.get(key), self._health.get(key[0]))
        return any(each is not None and each.wants_probe(now) for each in mine)

    def _note(
        self, keys: Iterable[CircuitKey], change: Callable[[Circuit], Circuit]
    ) -> None:
        for key in keys:
            before = self._health.get(key)
            if before is None:
                continue
            after = change(before)
            self._health[key] = after
            if after.proved:
                del self._health[key]
        stand = self._stand()
        if any(
            _place(stand.get(k)) != _place(self._standings.get(k)) for k in self._fleet
        ):
            self._changed()

    def _follow(self, candidates: Sequence[EngineCandidate]) -> None:
        """Whoever comes back, or was started anew, is probed at once."""
        before, self._fleet = self._fleet, {each.key: each for each in candidates}
        there = {*self._fleet, *(each.member for each in candidates)}
        self._health = {k: h for k, h in self._health.items() if k in there}
        now = self._clock()
        self._failed = {
            key: self._failed.get(key, now)
            for key, each in self._fleet.items()
            if each.engine.state == "failed"
        }
        self._lost = self._given_up()
        for key, each in self._fleet.items():
            if key in before and _is_anew(before[key], each):
                for whose in (key, each.member):
                    health = self._health.get(whose)
                    if health is not None and not health.closed:
                        self._health[whose] = replace(health, probe_at=now)

    def _given_up(self) -> set[EngineKey]:
        """Engines that failed so long ago that nobody should wait for them."""
        since = self._clock() - FAILED_SECONDS
        return {key for key, failed in self._failed.items() if failed <= since}

    def _stand(self) -> dict[EngineKey, HealthRank]:
        """Compare the engines of each model with one another."""
        if not self._health:
            return {}
        models: dict[str, dict[EngineKey, int]] = {}
        for key, each in self._fleet.items():
            models.setdefault(each.engine.model, {})[key] = each.engine.slots
        now, found = self._clock(), dict[EngineKey, HealthRank]()
        for slots in models.values():
            found |= standings({key: self.health(key) for key in slots}, slots, now)
        return found

    def _marked(self, each: EngineCandidate) -> EngineCandidate:
        if each.key in self._lost:
            return replace(each, passing=False)
        standing = self._standings.get(each.key)
        if standing is None or standing == HealthRank(0, each.engine.slots, 0.0):
            return each
        if standing.rank == OUT and each.barred is None:
            return replace(each, barred=OUT_FOR_NOW, passing=True)
        return replace(each, rank=standing.rank, risk=standing.risk)


def _place(standing: HealthRank | None) -> tuple[int, int] | None:
    return None if standing is None else (standing.rank, standing.usable)


def _is_anew(before: EngineCandidate, after: EngineCandidate) -> bool:
    back = before.barred is not None and after.barred is None
    return back or before.engine.epoch != after.engine.epoch
