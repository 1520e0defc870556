"""Fleet model: one engine model for each engine that nodes report. Pure.

An engine that restarts has lost its caches; one whose build, variant or launch settings
changed is another engine, whose speed is learned anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf

from balancer.fleet.engines import Difference, EngineCandidate, EngineKey
from balancer.fleet.slot_counts import SlotCounts
from balancer.prediction.conditions import (
    POLICY,
    SECONDS,
    UNMEASURED,
    MachinePolicy,
    Serving,
    condition,
    foreign_share,
)
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.large.tracked import (
    SHARED_SECONDS,
    WORK_LINGERS,
    TrackedEngine,
)
from balancer.prediction.learning import SpeedKey, SpeedStore, speed_key
from balancer.prediction.prefix_cache import PrefixCacheIndex, host_cache
from balancer.prediction.servers.knowledge import ServerKnowledge
from balancer.prediction.speed import Speed, expected_speed

DELAY_SECONDS = 1.0
"""For so many seconds a report may still count a request of ours that has ended."""

FEW, JUDGE_SECONDS = 64, 1.0
"""In a fleet of more engines, all machines are judged anew no more often than this."""


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
        self._candidates: Sequence[EngineCandidate] = ()
        self._tracked: dict[EngineKey, TrackedEngine] = {}
        self._of_node: dict[str, dict[EngineKey, TrackedEngine]] = {}
        self._judged_at = -inf

    def get(self, key: EngineKey) -> EngineModel | None:
        """Return the model of an engine, while it is in the fleet."""
        return t.engine_model if (t := self._tracked.get(key)) else None

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
        return [each.engine_model for each in self._tracked.values()]

    def sync(self, candidates: Sequence[EngineCandidate], now: float) -> None:
        """Take in what the nodes report.

        An absent engine is in no slot and holds no prefix; its speed stays in `speeds`.
        """
        candidates = [each for each in candidates if each.engine.state != "absent"]
        before, self._candidates = self._candidates, candidates
        found = Difference.of(before, candidates)
        for gone in found.gone:
            self._remove(gone)
        for each in found.changed:
            tracked = self._tracked.get(each.key)
            if tracked is None or tracked.candidate.engine is not each.engine:
                tracked = self._refreshed(each, tracked, now)
            if (each.unavailable or tracked.candidate.unavailable) is not None:
                tracked.usable_since = now
            tracked.candidate = each
        while self._slot_counts.adjusted:  # without a report
            if tracked := self._tracked.get(self._slot_counts.adjusted.pop()):
                self._count(tracked, now)
        self._judge(found.changed, now)

    def _remove(self, key: EngineKey) -> None:
        self.probed(key)
        self._tracked.pop(key).engine_model.remove()
        self.last_resort.pop(key, None)
        (node := self._of_node[key[0]]).pop(key)
        if not node:
            del self._of_node[key[0]]

    def _judge(self, changed: Sequence[EngineCandidate], now: float) -> None:
        """Apply the state of the machines that changed; at times of all of them.

        What others use of a processor also depends on how long our work is over.
        """
        every = len(self._tracked) <= FEW or now - self._judged_at >= JUDGE_SECONDS
        judged = list(self._tracked.values())
        if every:
            self._judged_at = now
        else:
            nodes = dict.fromkeys(each.node_id for each in changed)
            judged = [t for n in nodes for t in self._of_node.get(n, {}).values()]
        for tracked in judged:
            self._apply_condition(tracked, now)
        if self._calibrates:
            self._hold_back_unmeasured(judged, now)

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
            self._of_node.setdefault(each.node_id, {})[each.key] = tracked
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
        slots, engine_model.served, engine_model.width = each.engine.slots, served, None
        if served.learns_width:
            engine_model.width = self.servers.width(each.key, slots, served.most)
        if engine_model.slots != each.engine.slots:
            engine_model.resize(each.engine.slots, now)

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

    def _hold_back_unmeasured(
        self, judged: Iterable[TrackedEngine], now: float
    ) -> None:
        """Make unmeasured engines a last resort, for as long as measuring may take."""
        new = [
            tracked
            for tracked in judged
            if not tracked.engine_model.learner.calibrated
            and tracked.candidate.key not in self.last_resort
            and tracked.candidate.engine.kind != "server"
            and now - tracked.usable_since < SECONDS
        ]
        if not new:
            return
        models = {tracked.engine_model.model for tracked in new}
        serving = Serving(
            tracked.engine_model
            for key, tracked in self._tracked.items()
            if tracked.engine_model.model in models
            and tracked.candidate.unavailable is None
            and key not in self.last_resort
        )
        for tracked in new:
            if serving.better_than(tracked.engine_model):
                self.last_resort[tracked.candidate.key] = UNMEASURED

    def _own_share(self, of: EngineCandidate, now: float) -> float:
        """Return the share of a processor that our own work may explain.

        An engine on a GPU hardly depends on the load of its processor.
        """
        if of.hardware is None or of.engine.launch.gpu_layers:
            return 1.0
        threads = 0
        for key, tracked in self._of_node[of.node_id].items():
            if self._slot_counts.busy(key):
                tracked.worked_at = now
            if now - tracked.worked_at < WORK_LINGERS:
                threads += tracked.candidate.engine.launch.threads
        return min(1.0, threads / max(1, of.hardware.cpu.logical_cores))
