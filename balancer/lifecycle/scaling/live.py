"""Live scaler: the autoscaler over the live fleet; the loader asks what it wishes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from balancer.fleet.engines import EngineCandidate, EngineKey
from balancer.lifecycle.placement import Load, Unload
from balancer.lifecycle.scaling.rules import Scaler
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
    """

    def __init__(
        self,
        state: BalancerState,
        goal: float,
        limits: Callable[[str], Bounds] = unlimited,
    ) -> None:
        self.limits = limits
        self._state = state
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
        return [
            Load(to=candidates[each.engine], why=each.why)
            if each.action == "load"
            else Unload(to=candidates[each.engine], why=each.why)
            for each in self._scaler.decide(models, now)
        ]

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
        loaded = [each for each in writing if each.engine.state != "absent"]
        found = map(self._seen_engine, (*loaded, *places.values()))
        return [each for each in found if each is not None]

    def _counts(self, each: EngineCandidate) -> bool:
        """Whether requests go to an engine, or would if it were loaded."""
        avoided = self._avoided(each.key)
        if each.engine.state in {"absent", "loading"}:
            return each.temporary and avoided in {None, UNMEASURED}
        return each.unavailable is None and avoided is None

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
