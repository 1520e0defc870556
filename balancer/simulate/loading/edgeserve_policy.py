"""EdgeServe's loading in the simulator: on demand, and with autoscaling."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from balancer.fleet.engines import EngineKey
from balancer.lifecycle.demand import demands
from balancer.lifecycle.placement import plan
from balancer.lifecycle.scaling.rules import Scaler
from balancer.lifecycle.scaling.view import ScalingView, SeenEngine
from balancer.prediction.engine_model import EngineModel
from balancer.routing.queued_request import QueuedRequest
from balancer.simulate.edgeserve_policy import Edge
from balancer.simulate.engine import Event
from balancer.simulate.loading.fleets import HostFleet
from balancer.simulate.loading.memory import HostMemory
from balancer.simulate.loading.reports import candidates, outlook
from balancer.simulate.world import Act, Empty, Start, Wake

TICK = 1.0
"""Seconds between two looks of the autoscaler, as in a balancer."""

WAIT_GOAL = 5.0
"""The default of a balancer's `wait_goal`."""


class LoadingEdge(Edge):
    """The balancer's routing over what is loaded, with loads on demand.

    With `scales`, the autoscaler adds and removes replicas, too.
    """

    def __init__(self, fleet: HostFleet, *, scales: bool) -> None:
        super().__init__(fleet.engines)
        self.memory = HostMemory(fleet)
        self.scaler = Scaler(WAIT_GOAL) if scales else None
        self.view = ScalingView()
        self.keys: list[EngineKey] = [(each.host, each.name) for each in fleet.engines]
        self.ticks_at = -1.0

    def eligible(self, request: QueuedRequest) -> Sequence[EngineModel]:
        """Return the loaded engines of the model, fast ones first."""
        model = request.model
        if model not in self.engines_by_model:
            ready = self.memory.of(model, "ready")
            found = [self.engine_models[i] for i in ready]
            self.engines_by_model[model] = sorted(found, key=lambda each: each.per_read)
        return self.engines_by_model[model]

    def notice(self, event: Event, engine: int, now: float) -> Sequence[Act]:
        """Take in what a stream shows; an engine that has to may leave."""
        acts = self.memory.end(engine, now) if event.kind == "end" else []
        acts += Edge.notice(self, event, engine, now)
        return self._emptied(acts)

    def assign(self, now: float) -> list[Act]:
        """Load what is asked for, and start what can start."""
        acts = self.memory.advance(now)
        acts += self._load_on_demand(now)
        acts += self._scale(now)
        self.engines_by_model.clear()
        for act in Edge.assign(self, now):
            acts.append(act)
            if isinstance(act, Start):
                self.memory.start(act.engine, now)
        return self._emptied(acts)

    def _emptied(self, acts: list[Act]) -> list[Act]:
        """Forget what was cached in engines that have left."""
        for act in acts:
            if isinstance(act, Empty):
                self.engine_models[act.engine].restarted()
        return acts

    def _load_on_demand(self, now: float) -> list[Act]:
        """Load for waiting requests, one load after the other."""
        acts = list[Act]()
        while self.waiting:
            reported = candidates(self.memory, now)
            wanted = demands(self.waiting, reported)
            seen = outlook(self.memory, self.engine_models, reported, wanted, now)
            load = next(filter(None, (plan(each, seen).load for each in wanted)), None)
            if load is None:
                break
            engine = self.keys.index(load.to.key)
            acts += self.memory.load(engine, self.memory.evicts(engine) or (), now)
        return acts

    def _scale(self, now: float) -> list[Act]:
        """Ask the autoscaler each second, while there is something to decide."""
        if self.scaler is None or now < self.ticks_at:
            return []
        acts = list[Act]()
        seen = list(filter(None, map(self._seen, range(len(self.keys)))))
        waiting = Counter(each.model for each in self.waiting)
        for scale in self.scaler.decide(self.view.look(seen, waiting, {}, now), now):
            engine = self.keys.index(scale.engine)
            if scale.action == "load":
                acts += self.memory.load(engine, self.memory.evicts(engine) or (), now)
            else:
                self.memory.unloads += 1
                acts += self.memory.unload(engine, now)
        counts = Counter(each.model for each in seen if each.loaded is not False)
        if self.waiting or self.assignments or max(counts.values(), default=0) > 1:
            self.ticks_at = now + TICK
            acts.append(Wake(self.ticks_at))
        return acts

    def _seen(self, engine: int) -> SeenEngine | None:
        held, hosted = self.memory.engines[engine], self.memory.fleet.engines[engine]
        evicts = self.memory.evicts(engine) if held.state == "absent" else []
        if held.state == "leaving" or evicts is None:
            return None
        states = {"absent": False, "ready": True}
        return SeenEngine(
            key=self.keys[engine],
            model=hosted.model,
            slots=hosted.slots,
            speed=self.engine_models[engine].speed,
            loaded=states.get(held.state),
            engine=self.engine_models[engine] if held.state == "ready" else None,
            load_seconds=hosted.load_seconds,
            evicts=tuple(self.keys[i] for i in evicts),
        )
