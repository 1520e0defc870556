"""Fleet model: one engine model for each engine that nodes report. Pure.

An engine that restarts has lost its caches; one whose build, variant or launch settings
changed is another engine, whose speed is learned anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

from balancer.fleet.engines import EngineCandidate, EngineKey
from balancer.fleet.slot_counts import SlotCounts
from balancer.prediction.conditions import (
    POLICY,
    SECONDS,
    UNMEASURED,
    MachinePolicy,
    condition,
    foreign_share,
    stands_back,
)
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.learning import SpeedKey, SpeedStore, speed_key
from balancer.prediction.prefix_cache import PrefixCacheIndex, host_cache
from balancer.prediction.servers.knowledge import ServerKnowledge
from balancer.prediction.servers.width import LearnedWidth
from balancer.prediction.speed import Speed, expected_speed
from edgeserve.served import Served

WORK_LINGERS = 10.0
"""Seconds for which the load of a processor may still come from our own work."""

DELAY_SECONDS = 1.0
"""For so many seconds a report may still count a request of ours that has ended."""

SHARED_SECONDS = 600.0
"""So long after work of another balancer was seen, engines choose their slots: two
requests that name the same slot would wait for each other."""


@dataclass(slots=True)
class TrackedEngine:
    """One engine as it was last reported."""

    engine_model: EngineModel
    key: SpeedKey
    incarnation: tuple[str, int]
    candidate: EngineCandidate
    usable_since: float = 0.0
    """Since when it can take requests."""
    worked_at: float = -WORK_LINGERS
    foreign: float = 0.0
    """The share of its processor that others use."""
    unknown_since: float | None = None
    """Since when slots are taken that this balancer did not take."""
    shared_at: float = -SHARED_SECONDS
    """When that last lasted longer than reports are late."""
    probe_place: int | None = None
    """The place of the slot that a probe uses."""
    abandoned: list[int] = field(default_factory=list[int])
    """Places of the slots that work for clients that left, the oldest first."""


class FleetModel:
    """The engine models of the fleet.

    `last_resort` says why some engines only get requests that no other can serve.
    `calibrates`: unmeasured engines will be probed.
    """

    def __init__(
        self,
        cache_index: PrefixCacheIndex,
        slot_counts: SlotCounts,
        speeds: SpeedStore | None = None,
        policy: MachinePolicy = POLICY,
        *,
        calibrates: bool = False,
    ) -> None:
        self.speeds = speeds or SpeedStore()
        self.servers = ServerKnowledge()
        self.last_resort: dict[EngineKey, str] = {}
        self._calibrates = calibrates
        self.cache_index = cache_index
        self._slot_counts = slot_counts
        self._policy = policy
        self._tracked: dict[EngineKey, TrackedEngine] = {}

    def get(self, key: EngineKey) -> EngineModel | None:
        """Return the model of an engine, while it is in the fleet."""
        tracked = self._tracked.get(key)
        return tracked.engine_model if tracked else None

    def of(self, candidates: Iterable[EngineCandidate]) -> list[EngineModel]:
        """Return the models of those that are in the fleet."""
        return [
            self._tracked[each.key].engine_model
            for each in candidates
            if each.key in self._tracked
        ]

    def worked_at(self, key: EngineKey) -> float:
        """Return when it last worked for this balancer; it may be at work yet."""
        tracked = self._tracked.get(key)
        return tracked.worked_at if tracked else -inf

    def speed(self, each: EngineCandidate) -> Speed:
        """Return what is known about the speed of an engine, loaded or not."""
        return self.speeds.learner(speed_key(each), expected_speed(each.engine)).speed

    def all(self) -> list[EngineModel]:
        """Return all models."""
        return [tracked.engine_model for tracked in self._tracked.values()]

    def sync(self, candidates: Sequence[EngineCandidate], now: float) -> None:
        """Take in what the nodes report.

        An absent engine is in no slot and holds no prefix; its speed stays in `speeds`.
        """
        candidates = [each for each in candidates if each.engine.state != "absent"]
        there = {each.key for each in candidates}
        for gone in self._tracked.keys() - there:
            self.probed(gone)
            self._tracked.pop(gone).engine_model.remove()
            self.last_resort.pop(gone, None)
        for each in candidates:
            tracked = self._tracked.get(each.key)
            if tracked is None or tracked.candidate.engine is not each.engine:
                tracked = self._refreshed(each, tracked, now)
            tracked.candidate = each
            if each.unavailable is not None:
                tracked.usable_since = now
        for tracked in self._tracked.values():
            self._apply_condition(tracked, now)
        if self._calibrates:
            self._hold_back_unmeasured(now)

    def recount(self, key: EngineKey, now: float, left: Iterable[int] = ()) -> None:
        """Count again after slots were taken or given back.

        The slots that clients `left` stay busy until their engine has noticed.
        """
        if (tracked := self._tracked.get(key)) is not None:
            for slot in left:
                place = tracked.engine_model.places[slot]
                tracked.abandoned.append(place)
                self.cache_index.occupy(place)
            tracked.worked_at = now
            self._count(tracked, now)

    def _refreshed(
        self, each: EngineCandidate, tracked: TrackedEngine | None, now: float
    ) -> TrackedEngine:
        key, incarnation = speed_key(each), (each.instance, each.engine.epoch)
        if tracked is not None and tracked.key == key:
            if tracked.incarnation != incarnation:
                tracked.engine_model.restarted()
                tracked.incarnation = incarnation
        else:
            if tracked is not None:
                self.probed(each.key)
                tracked.engine_model.remove()
            tracked = TrackedEngine(
                engine_model=self._engine_model(each, key, now),
                key=key,
                incarnation=incarnation,
                candidate=each,
                usable_since=now,
            )
            self._tracked[each.key] = tracked
        self._take_width(tracked, each, now)
        self._count(tracked, now)
        return tracked

    def _engine_model(
        self, each: EngineCandidate, key: SpeedKey, now: float
    ) -> EngineModel:
        engine, launch = each.engine, each.engine.launch
        host = host_cache(engine, self.cache_index)
        engine_model = EngineModel(
            name=" ".join(each.key),
            model=engine.model,
            slots=engine.slots,
            learner=self.speeds.learner(key, expected_speed(engine)),
            cache_index=self.cache_index,
            batch=launch.batch,
            context=engine.context,
            pins=engine.slots > 1 and host is None and engine.served is None,
            host=host,
            served=engine.served,
        )
        engine_model.now = now
        return engine_model

    def _take_width(
        self, tracked: TrackedEngine, each: EngineCandidate, now: float
    ) -> None:
        """Take as many requests as a server answers at once, by what is known now."""
        engine_model, served = tracked.engine_model, each.engine.served
        if served is None:
            return
        learns = served.learns_width
        engine_model.served = served
        engine_model.width = self._learned_width(each, served) if learns else None
        if engine_model.slots != each.engine.slots:
            engine_model.resize(each.engine.slots, now)

    def _learned_width(self, each: EngineCandidate, served: Served) -> LearnedWidth:
        return self.servers.width(each.key, each.engine.slots, served.most)

    def _count(self, tracked: TrackedEngine, now: float) -> None:
        engine_model = tracked.engine_model
        taken = self._slot_counts.of(tracked.candidate.key)
        foreign = max(0, taken.busy - engine_model.load.slots)
        while len(tracked.abandoned) > taken.left:
            self.cache_index.release(tracked.abandoned.pop(0))
        self._pin(tracked, now, foreign > taken.left)
        if foreign != engine_model.foreign:
            engine_model.advance(now)
            engine_model.foreign = foreign
            engine_model.stale = True

    def _pin(self, tracked: TrackedEngine, now: float, unknown: bool) -> None:
        """Decide whether requests may name their slot."""
        if not unknown:
            tracked.unknown_since = None
        elif tracked.unknown_since is None:
            tracked.unknown_since = now
        elif (
            now - tracked.unknown_since > DELAY_SECONDS and tracked.probe_place is None
        ):
            tracked.shared_at = now
        engine_model = tracked.engine_model
        if engine_model.served is not None:
            return
        several = engine_model.slots > 1 and engine_model.host is None
        engine_model.pins = several and now - tracked.shared_at >= SHARED_SECONDS

    def probe(self, key: EngineKey) -> int | None:
        """Reserve an idle slot for a probe; the slot loses its content."""
        engine_model = (tracked := self._tracked[key]).engine_model
        idle = engine_model.idle_slots()
        if not idle:
            return None
        tracked.probe_place = engine_model.places[idle[-1]]
        self.cache_index.forget(tracked.probe_place)
        self.cache_index.occupy(tracked.probe_place)
        return idle[-1] if engine_model.pins else None

    def probed(self, key: EngineKey) -> None:
        """Free the slot of the probe."""
        tracked = self._tracked.get(key)
        if tracked is not None and tracked.probe_place is not None:
            self.cache_index.release(tracked.probe_place)
            tracked.probe_place = None

    def _apply_condition(self, tracked: TrackedEngine, now: float) -> None:
        """Apply the state of the machine: risk, scale, last resort."""
        each = tracked.candidate
        tracked.engine_model.risk = each.risk
        self.last_resort.pop(each.key, None)
        if each.engine.last_resort:
            self.last_resort[each.key] = "its settings say so"
        if each.hardware is None:
            return
        tracked.foreign = foreign_share(
            each.hardware.cpu.load, self._own_share(each, now), tracked.foreign
        )
        threads = each.engine.launch.threads
        found = condition(each.hardware, tracked.foreign, threads, self._policy)
        if found.avoided:
            self.last_resort[each.key] = found.avoided
        if found.scale != tracked.engine_model.scale:
            tracked.engine_model.advance(now)
            tracked.engine_model.scale = found.scale
            tracked.engine_model.stale = True

    def _hold_back_unmeasured(self, now: float) -> None:
        """Make unmeasured engines a last resort, for as long as measuring may take."""
        new = [
            tracked
            for key, tracked in self._tracked.items()
            if not tracked.engine_model.learner.calibrated
            and key not in self.last_resort
            and tracked.candidate.engine.kind != "server"
            and now - tracked.usable_since < SECONDS
        ]
        if not new:
            return
        serving = [
            tracked.engine_model
            for key, tracked in self._tracked.items()
            if tracked.candidate.unavailable is None and key not in self.last_resort
        ]
        for tracked in new:
            if stands_back(tracked.engine_model, serving):
                self.last_resort[tracked.candidate.key] = UNMEASURED

    def _own_share(self, of: EngineCandidate, now: float) -> float:
        """Return the share of a processor that our own work may explain.

        An engine on a GPU hardly depends on the load of its processor.
        """
        if of.hardware is None or of.engine.launch.gpu_layers:
            return 1.0
        threads = 0
        for key, tracked in self._tracked.items():
            if key[0] != of.node_id:
                continue
            if self._slot_counts.busy(key):
                tracked.worked_at = now
            if now - tracked.worked_at < WORK_LINGERS:
                threads += tracked.candidate.engine.launch.threads
        return min(1.0, threads / max(1, of.hardware.cpu.logical_cores))
