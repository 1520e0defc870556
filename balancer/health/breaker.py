"""Circuit breakers: which engines get requests after failures.

Wrong breakers must not stop the service: at most half of the capacity is shut out, and
never the last engine. Engines that stay in only for that reason come last, after every
suspect.

An engine that joins is trusted: other engines make up for a failure or two. State is
kept only for engines and nodes that failed, until they prove healthy; see `circuit`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from balancer.fleet.engines import Difference, EngineCandidate, EngineKey
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
    """Where one engine stands: a lower `rank` goes first, whatever its load.

    `usable`: how many of its slots may be taken. `risk`: the share of failures to
    expect, 0 to 1.
    """

    rank: Rank
    usable: int
    risk: float


def ranks(
    records: Mapping[Key, Circuit], slots: Mapping[Key, int], now: float
) -> dict[Key, HealthRank]:
    """Rank engines that compete. `slots`: the capacity of each."""
    out = _shut_out(records, slots)
    return {
        key: _rank(health, slots[key], now, out=key in out)
        for key, health in records.items()
    }


def worse(one: Circuit, other: Circuit) -> Circuit:
    """Return the worse of an engine's circuit and its node's."""
    return max(one, other, key=_badness)


def _rank(health: Circuit, slots: int, now: float, *, out: bool) -> HealthRank:
    if out:
        return HealthRank(OUT, 0, 1.0)
    if not health.closed:
        return HealthRank(LAST_RESORT, slots, 1.0)
    rank = SUSPECT if health.state == "suspect" else GOOD
    return HealthRank(rank, health.usable(slots, now), health.risk)


def _shut_out(records: Mapping[Key, Circuit], slots: Mapping[Key, int]) -> set[Key]:
    """Choose the worst, up to half of the capacity."""
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
"""How long to wait for a node to restart its engine, if no other serves the model."""

OUT_FOR_NOW = "it failed a moment ago; a probe is to show whether it is well"

CircuitKey = EngineKey | str
"""Names an engine, or a node by its id."""


class CircuitBreakers:
    """Counts outcomes of requests and probes; ranks the engines.

    `changed` is called when an engine's rank or its usable slots change.
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
        self._candidates: tuple[EngineCandidate, ...] = ()
        self._fleet: dict[EngineKey, EngineCandidate] = {}
        self._ranks: dict[EngineKey, HealthRank] = {}
        self._failed: dict[EngineKey, float] = {}
        self._lost = set[EngineKey]()

    def ranked(
        self, candidates: Sequence[EngineCandidate]
    ) -> tuple[EngineCandidate, ...]:
        """Add to each candidate its rank, or that it is barred."""
        self._follow(candidates)
        self._ranks = self._rank_all()
        if not self._ranks and not self._lost:
            return tuple(candidates)
        return tuple(map(self._marked, candidates))

    @property
    def reserved(self) -> dict[EngineKey, int]:
        """Slots that must stay free yet: an engine that recovers starts slowly."""
        return {
            key: self._fleet[key].engine.slots - each.usable
            for key, each in self._ranks.items()
        }

    def shown(self, node_id: str) -> dict[str, str]:
        """Return the states of a node's engines that are not healthy, by id."""
        if not self._health:
            return {}
        return {
            key[1]: self.health(key).state
            for key in self._fleet
            if key[0] == node_id and not self.health(key).trusted
        }

    def health(self, key: EngineKey) -> Circuit:
        """Return an engine's circuit, or its node's where that is worse."""
        engine = self._health.get(key, TRUSTED)
        node = self._health.get(key[0])
        return engine if node is None else worse(engine, node)

    def engine(self, key: EngineKey) -> EngineReport | None:
        """Return the latest report of an engine."""
        each = self._fleet.get(key)
        return None if each is None else each.engine

    def answered(self, key: EngineKey) -> None:
        """Count a request that was answered."""
        if self._health:
            now = self._clock()
            self._note((key, key[0]), lambda each: each.succeeded(now))

    def failed(self, key: EngineKey, fault: Fault) -> None:
        """Count a failure against the engine or the node at fault."""
        if fault == "none":
            return
        now, jitter = self._clock(), self._jitter()
        at_fault: CircuitKey = key[0] if fault == "node" else key
        self._health.setdefault(at_fault, TRUSTED)
        if fault == "doubt":
            self._note((at_fault,), lambda each: each.doubted(now))
        else:
            self._note((at_fault,), lambda each: each.failed(now, jitter))

    def question(self, key: EngineKey) -> None:
        """Have an engine probed; meanwhile it gets requests as before."""
        now = self._clock()
        self._health.setdefault(key, TRUSTED)
        self._note((key,), lambda each: each.questioned(now))

    def probed(self, key: EngineKey, *, well: bool) -> None:
        """Note the result of a probe, for an engine and its node."""
        now, jitter = self._clock(), self._jitter()
        self._note(
            (key, key[0]), lambda each: each.probed(well=well, now=now, jitter=jitter)
        )

    def due(self) -> list[EngineCandidate]:
        """List the engines to probe now, and note that they are."""
        now = self._clock()
        due = [
            each
            for each in self._fleet.values()
            if each.unavailable is None and self._wants(each.key, now)
        ]
        for each in due:
            self._note((each.key, each.node_id), lambda health: health.probing(now))
        return due

    def tick(self) -> None:
        """Let time pass: a slow start ends by itself."""
        if self._failed and self._given_up() != self._lost:
            self._changed()
        if self._health:
            self._note((), lambda each: each)

    def _wants(self, key: EngineKey, now: float) -> bool:
        circuits = (self._health.get(key), self._health.get(key[0]))
        return any(each is not None and each.wants_probe(now) for each in circuits)

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
        ranks = self._rank_all()
        if any(_place(ranks.get(k)) != _place(self._ranks.get(k)) for k in self._fleet):
            self._changed()

    def _follow(self, candidates: Sequence[EngineCandidate]) -> None:
        """Take the fleet; an engine that is back, or restarted, is probed at once."""
        before, self._candidates = self._candidates, tuple(candidates)
        found, known = Difference.of(before, self._candidates), self._fleet
        back = [
            each
            for each in found.changed
            if each.key in known and _is_back(known[each.key], each)
        ]
        now = self._clock()
        for key in found.gone:
            del known[key]
            self._failed.pop(key, None)
        for each in found.changed:
            known[each.key] = each
            if each.engine.state == "failed":
                self._failed.setdefault(each.key, now)
            else:
                self._failed.pop(each.key, None)
        self._lost = self._given_up()
        if not self._health:
            return
        present = {*known, *(node for node, _ in known)}
        self._health = {k: h for k, h in self._health.items() if k in present}
        for each in back:
            for which in (each.key, each.node_id):
                health = self._health.get(which)
                if health is not None and not health.closed:
                    self._health[which] = replace(health, probe_at=now)

    def _given_up(self) -> set[EngineKey]:
        """Engines that failed so long ago that no request should wait for them."""
        since = self._clock() - FAILED_SECONDS
        return {key for key, failed in self._failed.items() if failed <= since}

    def _rank_all(self) -> dict[EngineKey, HealthRank]:
        """Rank the engines of each model among themselves."""
        if not self._health:
            return {}
        models: dict[str, dict[EngineKey, int]] = {}
        for key, each in self._fleet.items():
            if each.engine.state != "absent":  # it is no capacity
                models.setdefault(each.engine.model, {})[key] = each.engine.slots
        now, found = self._clock(), dict[EngineKey, HealthRank]()
        for slots in models.values():
            found |= ranks({key: self.health(key) for key in slots}, slots, now)
        return found

    def _marked(self, each: EngineCandidate) -> EngineCandidate:
        if each.key in self._lost:
            return replace(each, temporary=False)
        found = self._ranks.get(each.key)
        if found is None or found == HealthRank(0, each.engine.slots, 0.0):
            return each
        if found.rank == OUT and each.unavailable is None:
            return replace(each, unavailable=OUT_FOR_NOW, temporary=True)
        return replace(each, rank=found.rank, risk=found.risk)


def _place(found: HealthRank | None) -> tuple[int, int] | None:
    return None if found is None else (found.rank, found.usable)


def _is_back(before: EngineCandidate, after: EngineCandidate) -> bool:
    available = before.unavailable is not None and after.unavailable is None
    return available or before.engine.epoch != after.engine.epoch
