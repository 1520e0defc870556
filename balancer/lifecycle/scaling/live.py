"""Live scaler: the autoscaler over the live fleet; the loader asks what it wishes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable

from balancer.fleet.engines import ASLEEP, EngineCandidate, EngineKey
from balancer.lifecycle.events import LifecycleEvent, LifecycleEvents
from balancer.lifecycle.ledger import Clock
from balancer.lifecycle.placement import Load, Unload
from balancer.lifecycle.scaling.rules import Scale, Scaler
from balancer.lifecycle.scaling.view import Bounds, ScalingView, SeenEngine
from balancer.prediction.conditions import UNMEASURED
from balancer.state import BalancerState
from edgeserve.openai import normal

LOOK_SECONDS = 1.0
"""Least time between two looks; the loader looks more often."""

WRITES = frozenset(("chat", "completion"))
"""Abilities whose requests hold a slot long enough to be predicted."""


def unlimited(model: str) -> Bounds:  # noqa: ARG001 - as one with limits
    """Return the limits of a model, where there are none."""
    return 0, None


class FleetScaler:
    """Reads the fleet, the queue and the predictions, once a second.

    `limits` returns the least and the most replicas of a model in normal spelling.
    `wall` is the time of day, for `events`.
    """

    def __init__(
        self,
        state: BalancerState,
        goal: float,
        events: LifecycleEvents,
        limits: Callable[[str], Bounds] = unlimited,
        wall: Clock = time.time,
    ) -> None:
        self.limits = limits
        self._state = state
        self._events = events
        self._wall = wall
        self._scaler = Scaler(goal)
        self._view = ScalingView()
        self._next_look = 0.0

    def wishes(self, now: float) -> Iterable[Load | Unload]:
        """Return what to load and unload; see `loader.Wishes`."""
        if now < self._next_look:
            return ()
        self._next_look = now + LOOK_SECONDS
        candidates = {each.key: each for each in self._state.current.candidates}
        seen = self._seen(candidates.values())
        limits = {each.model: self.limits(normal(each.model)) for each in seen}
        models = self._view.look(seen, self._waiting(candidates.values()), limits, now)
        scales = self._scaler.decide(models, now)
        return [self._wish(each, candidates[each.engine]) for each in scales]

    def _wish(self, scale: Scale, to: EngineCandidate) -> Load | Unload:
        event = LifecycleEvent(
            at=self._wall(),
            kind="scaled",
            node=to.node,
            engine=to.engine.id,
            model=to.engine.variant,
            reason=scale.why,
        )
        self._events.append(event)
        if scale.action == "load":
            return Load(to=to, why=scale.why, seconds=to.engine.load_seconds)
        self._state.current.say(f"{to.node} unloads {to.engine.variant}: {scale.why}")
        return Unload(to=to, why=scale.why)

    def _waiting(self, candidates: Iterable[EngineCandidate]) -> Counter[str]:
        """Count the requests that wait for each model."""
        requests = self._state.queue.requests
        if not requests:
            return Counter()
        models = {name: each.engine.model for each in candidates for name in each.names}
        asked = (models.get(normal(each.model)) for each in requests)
        return Counter(each for each in asked if each)

    def _seen(self, candidates: Iterable[EngineCandidate]) -> list[SeenEngine]:
        """Return the engines that are loaded or load, and where more could be."""
        writing = [
            each
            for each in candidates
            if not WRITES.isdisjoint(each.engine.abilities) and self._counts(each)
        ]
        there = {
            (each.node_id, each.engine.model)
            for each in writing
            if each.engine.state != "absent"
        }
        places = dict[tuple[str, str], EngineCandidate]()
        for each in writing:
            place = each.node_id, each.engine.model
            if place not in there and _ranks_before(each, places.get(place)):
                places[place] = each
        loaded = self._used(each for each in writing if each.engine.state != "absent")
        found = map(self._seen_engine, (*loaded, *places.values()))
        return [each for each in found if each is not None]

    def _counts(self, each: EngineCandidate) -> bool:
        """Whether an engine takes requests, or would if it were loaded."""
        if each.engine.state == "absent" and each.engine.group:
            return False  # a group is for what fits nowhere, not for more of it
        if each.unavailable == ASLEEP:
            return False
        if each.engine.state in {"absent", "loading"}:
            avoided = self._avoided(each.key)
            return each.temporary and avoided in {None, UNMEASURED}
        return each.unavailable is None

    def _used(self, loaded: Iterable[EngineCandidate]) -> list[EngineCandidate]:
        """Leave out the last resorts of models that have others."""
        found = list(loaded)
        usual = [each for each in found if not self._avoided(each.key)]
        models = {each.engine.model for each in usual}
        return usual + [
            each
            for each in found
            if self._avoided(each.key) and each.engine.model not in models
        ]

    def _avoided(self, key: EngineKey) -> str | None:
        return self._state.predictive.fleet_model.last_resort.get(key)

    def _seen_engine(self, each: EngineCandidate) -> SeenEngine | None:
        models, engine = self._state.predictive.fleet_model, each.engine
        loaded = {"absent": False, "loading": None}.get(engine.state, True)
        model = models.get(each.key) if loaded else None
        if loaded and model is None:  # it has too many slots for predictions
            return None
        return SeenEngine(
            key=each.key,
            model=engine.model,
            slots=engine.slots,
            speed=models.speed(each),
            loaded=loaded,
            engine=model,
            load_seconds=engine.load_seconds,
            evicts=tuple((each.node_id, id_) for id_ in engine.evicts),
            pinned=engine.pinned,
        )


def _ranks_before(one: EngineCandidate, other: EngineCandidate | None) -> bool:
    """Whether a variant is loaded rather than another on the same node."""
    if other is None:
        return True

    def rank(each: EngineCandidate) -> tuple[int, int]:
        return len(each.engine.evicts), -each.engine.memory

    return rank(one) < rank(other)
