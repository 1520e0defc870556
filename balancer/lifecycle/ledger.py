"""Load ledger: the loads that were ordered, and what has become of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from balancer.fleet.engines import EngineCandidate, EngineKey
from balancer.health.loads import LoadFaults
from balancer.lifecycle.events import EventKind, LifecycleEvent, LifecycleEvents
from balancer.lifecycle.placement import Load
from balancer.lifecycle.transitions import Transition, transitions
from edgeserve.wire import EngineReport

Clock = Callable[[], float]

ORDER_SECONDS = 15.0
"""A node shows what became of an order within so many seconds, and twice those that
engines in its way need. After that the order is forgotten, and perhaps given again."""


@dataclass(frozen=True, slots=True)
class Ordered:
    """An order that its node does not show yet: expected to be done, and forgotten."""

    ready_at: float
    until: float


@dataclass(slots=True)
class LoadLedger:
    """Follows the reports of the fleet; writes events, and counts faults.

    `wall` is the time of day, for events.
    """

    events: LifecycleEvents
    faults: LoadFaults
    say: Callable[[str], None]
    wall: Clock = time.time
    ordered: dict[EngineKey, Ordered] = field(default_factory=dict[EngineKey, Ordered])
    _held: dict[EngineKey, float] = field(default_factory=dict[EngineKey, float])
    _began: dict[EngineKey, float] = field(default_factory=dict[EngineKey, float])
    _room: dict[EngineKey, str] = field(default_factory=dict[EngineKey, str])
    _busy: set[EngineKey] = field(default_factory=set[EngineKey])
    _loaded: dict[EngineKey, float] = field(default_factory=dict[EngineKey, float])
    _reports: Mapping[EngineKey, EngineReport] = field(
        default_factory=dict[EngineKey, EngineReport]
    )

    def follow(
        self, candidates: Sequence[EngineCandidate], up: frozenset[str], now: float
    ) -> None:
        """Take in what the nodes report."""
        found = transitions(self._reports, candidates)
        # First, because a fault changes the fleet, which leads back to here.
        self._reports = {each.key: each.engine for each in candidates}
        for each in found:
            self._note(each, now)
        self.ordered = {
            key: each
            for key, each in self.ordered.items()
            if each.until > now and key in self._reports and key[0] in up
        }
        self._held = {k: until for k, until in self._held.items() if until > now}
        there = self._reports
        self._busy &= there.keys()
        if not self.ordered and not self._began:
            self._room.clear()
        self._loaded = {k: at for k, at in self._loaded.items() if k in there}
        self._began = {
            key: at
            for key, at in self._began.items()
            if key in self.ordered or (key in there and there[key].state == "loading")
        }

    @property
    def active(self) -> bool:
        """Whether a load was ordered or goes on, so that every report matters."""
        return bool(self.ordered or self._began)

    def loaded_at(self, to: EngineCandidate, now: float) -> float:
        """Return when an engine was loaded: `now` where it is not yet."""
        if to.engine.state == "loading":
            return now
        return self._loaded.get(to.key, -inf)

    def held(self) -> frozenset[EngineKey]:
        """Return the engines that are not to be asked for now."""
        return frozenset(self._held)

    def busy(self) -> frozenset[EngineKey]:
        """Return the engines whose nodes said that busy ones are in their way."""
        return frozenset(self._busy)

    def hold(self, key: EngineKey, until: float, *, busy: bool = False) -> None:
        """Do not ask for an engine for a while; its order was not taken.

        `busy`: its node said that engines in its way are.
        """
        self.ordered.pop(key, None)
        self._held[key] = until
        if busy:
            self._busy.add(key)

    def order(self, load: Load, now: float) -> None:
        """Note that a load is ordered."""
        wait = max(0.0, load.seconds)
        self.ordered[load.to.key] = Ordered(now + wait, now + ORDER_SECONDS + 2 * wait)
        self._began[load.to.key] = now
        needed = f"{load.to.engine.variant} needs its memory"
        self._room |= {(load.to.node_id, id_): needed for id_ in load.to.engine.evicts}
        drains = "; what is in its way finishes first" if load.drain else ""
        self.say(f"{load.to.node} loads {load.to.engine.variant}: {load.why}{drains}")
        self._event("load_ordered", load.to, load.why, load.seconds)

    def refused(self, to: EngineCandidate, why: str) -> None:
        """Note that a node cannot load an engine."""
        self.ordered.pop(to.key, None)
        self._failed(to, why)

    def _note(self, each: Transition, now: float) -> None:
        to, key = each.to, each.to.key
        self.ordered.pop(key, None)
        match each.kind:
            case None if each.before == "absent":
                self._began.setdefault(key, now)
            case None if to.engine.state == "absent":
                self.faults.over(key)
            case None:
                pass  # it starts anew by itself
            case "loaded":
                began = self._began.pop(key, None)
                self._loaded[key] = now
                self._busy.discard(key)
                self.faults.loaded(key)
                self._event("loaded", to, "", None if began is None else now - began)
            case "load_failed":
                ordered = self._began.pop(key, None) is not None
                why = each.reason or "its load failed"
                self._failed(to, why, ordered=ordered)
            case kind:
                self._loaded.pop(key, None)
                room = self._room.pop(key, "")
                self._event(kind, to, room or each.reason)

    def _failed(self, to: EngineCandidate, why: str, *, ordered: bool = True) -> None:
        """Note a failure; an engine that was not `ordered` starts anew by itself."""
        self._event("load_failed", to, why)
        if ordered:
            self.say(f"{to.node} did not load {to.engine.variant}: {why}")
            self.faults.failed(to.key, why, to.engine.created)

    def _event(
        self,
        kind: EventKind,
        to: EngineCandidate,
        reason: str,
        seconds: float | None = None,
    ) -> None:
        self.events.append(
            LifecycleEvent(
                at=self.wall(),
                kind=kind,
                node=to.node,
                engine=to.engine.id,
                model=to.engine.variant,
                reason=reason,
                seconds=seconds,
            )
        )
