"""Fleet model: one engine model for each engine that nodes report. Pure.

An engine that restarts has lost its caches; one whose build, variant or launch settings
changed is another engine, whose speed is learned anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import msgspec

from balancer.fleet.engines import EngineCandidate, EngineKey
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
from balancer.prediction.learning import SpeedKey, SpeedStore
from balancer.prediction.prefix_cache import HostCache, PrefixCacheIndex
from balancer.prediction.speed import believed, parameters
from edgeserve.wire import EngineReport, Launch

WORK_LINGERS = 10.0
"""Seconds for which a processor's load may still be our own work's."""

DELAY_SECONDS = 1.0
"""For so long a report may count a request of ours that has ended."""

SHARED_SECONDS = 600.0
"""After work of another balancer was seen, slots are left to the engine's choice:
two that name the same slot would wait for each other."""

MIB = 2**20


@dataclass(slots=True)
class TrackedEngine:
    """One engine as it was last reported."""

    lane: EngineModel
    key: SpeedKey
    life: tuple[str, int]
    candidate: EngineCandidate
    fit: float = 0.0
    """Since when it could be asked."""
    worked: float = -WORK_LINGERS
    foreign: float = 0.0
    """The share of its processor that others use."""
    strange: float | None = None
    """Since when slots are taken that nobody here has taken."""
    shared: float = -SHARED_SECONDS
    """When that was last no mere delay of reports."""
    probed: int | None = None
    """The place of the slot that a probe has."""
    left: list[int] = field(default_factory=list[int])
    """Places of the slots that are at work for clients who have left, oldest first."""


class FleetModel:
    """One lane per engine. `busy` counts the slots that are taken, whoever took them.

    `left` counts those of them whose clients have left.
    `spare` says of some engines why they are only asked where nobody else serves.
    `calibrates`: engines that nobody has measured are about to be.
    """

    def __init__(
        self,
        holdings: PrefixCacheIndex,
        busy: Callable[[EngineKey], int],
        book: SpeedStore | None = None,
        policy: MachinePolicy = POLICY,
        left: Callable[[EngineKey], int] = lambda _: 0,
        *,
        calibrates: bool = False,
    ) -> None:
        self._left = left
        self.book = book or SpeedStore()
        self.spare: dict[EngineKey, str] = {}
        self._calibrates = calibrates
        self.holdings = holdings
        self._busy = busy
        self._policy = policy
        self._kept: dict[EngineKey, TrackedEngine] = {}

    def get(self, key: EngineKey) -> EngineModel | None:
        """An engine's lane, while it is in the fleet."""
        kept = self._kept.get(key)
        return kept.lane if kept else None

    def of(self, candidates: Iterable[EngineCandidate]) -> list[EngineModel]:
        """The lanes of engines that are in the fleet."""
        return [
            self._kept[each.key].lane for each in candidates if each.key in self._kept
        ]

    def all(self) -> list[EngineModel]:
        """Every engine's lane."""
        return [kept.lane for kept in self._kept.values()]

    def sync(self, candidates: Sequence[EngineCandidate], now: float) -> None:
        """Take in what the nodes report."""
        there = {each.key for each in candidates}
        for gone in self._kept.keys() - there:
            self.probed(gone)
            self._kept.pop(gone).lane.left()
            self.spare.pop(gone, None)
        for each in candidates:
            kept = self._kept.get(each.key)
            if kept is None or kept.candidate.engine is not each.engine:
                kept = self._renewed(each, kept, now)
            kept.candidate = each
            if each.barred is not None:
                kept.fit = now
        for kept in self._kept.values():
            self._judge(kept, now)
        if self._calibrates:
            self._spare_newcomers(now)

    def abandoned(self, key: EngineKey, slots: Iterable[int]) -> None:
        """A client left: its slots are nobody's until the engine has noticed."""
        if (kept := self._kept.get(key)) is not None:
            for place in (kept.lane.places[slot] for slot in slots):
                kept.left.append(place)
                self.holdings.occupy(place)

    def recount(self, key: EngineKey, now: float) -> None:
        """Slots of an engine were given back, or taken otherwise than by a job."""
        if (kept := self._kept.get(key)) is not None:
            kept.worked = now
            self._count(kept, now)

    def _renewed(
        self, each: EngineCandidate, kept: TrackedEngine | None, now: float
    ) -> TrackedEngine:
        key, life = speed_key(each), (each.instance, each.engine.epoch)
        if kept is not None and kept.key == key:
            if kept.life != life:
                kept.lane.lost()
                kept.life = life
        else:
            if kept is not None:
                self.probed(each.key)
                kept.lane.left()
            kept = TrackedEngine(
                lane=self._lane(each, key, now),
                key=key,
                life=life,
                candidate=each,
                fit=now,
            )
            self._kept[each.key] = kept
        self._count(kept, now)
        return kept

    def _lane(self, each: EngineCandidate, key: SpeedKey, now: float) -> EngineModel:
        engine, launch = each.engine, each.engine.launch
        host = _host_cache(engine, self.holdings)
        lane = EngineModel(
            name=" ".join(each.key),
            model=engine.model,
            slots=engine.slots,
            learner=self.book.learner(key, believed(engine)),
            holdings=self.holdings,
            batch=launch.batch,
            context=engine.context,
            pins=engine.slots > 1 and host is None,
            host=host,
        )
        lane.now = now
        return lane

    def _count(self, kept: TrackedEngine, now: float) -> None:
        lane = kept.lane
        key = kept.candidate.key
        foreign, left = max(0, self._busy(key) - lane.traffic.slots), self._left(key)
        while len(kept.left) > left:
            self.holdings.release(kept.left.pop(0))
        self._pin(kept, now, foreign > left)
        if foreign != lane.foreign:
            lane.advance(now)
            lane.foreign = foreign
            lane.stale = True

    def _pin(self, kept: TrackedEngine, now: float, strange: bool) -> None:
        """Say whether requests may name their slot."""
        if not strange:
            kept.strange = None
        elif kept.strange is None:
            kept.strange = now
        elif now - kept.strange > DELAY_SECONDS and kept.probed is None:
            kept.shared = now
        lane = kept.lane
        alone = now - kept.shared >= SHARED_SECONDS
        lane.pins = lane.slots > 1 and lane.host is None and alone

    def probe(self, key: EngineKey) -> int | None:
        """Take a slot out of the game for a probe; it loses what it holds."""
        kept = self._kept[key]
        lane = kept.lane
        idle = lane.idle_slots()
        if not idle:
            return None
        kept.probed = lane.places[idle[-1]]
        self.holdings.forget(kept.probed)
        self.holdings.occupy(kept.probed)
        return idle[-1] if lane.pins else None

    def probed(self, key: EngineKey) -> None:
        """The probe's slot is free again."""
        kept = self._kept.get(key)
        if kept is not None and kept.probed is not None:
            self.holdings.release(kept.probed)
            kept.probed = None

    def _judge(self, kept: TrackedEngine, now: float) -> None:
        """Let the machine's state count."""
        each = kept.candidate
        kept.lane.risk = each.risk
        self.spare.pop(each.key, None)
        if each.hardware is None:
            return
        kept.foreign = foreign_share(
            each.hardware.cpu.load, self._own_share(each, now), kept.foreign
        )
        threads = each.engine.launch.threads
        found = condition(each.hardware, kept.foreign, threads, self._policy)
        if found.barred:
            self.spare[each.key] = found.barred
        if found.scale != kept.lane.scale:
            kept.lane.advance(now)
            kept.lane.scale = found.scale
            kept.lane.stale = True

    def _spare_newcomers(self, now: float) -> None:
        """Leave alone whom nobody has measured yet, for as long as that may take."""
        new = [
            kept
            for key, kept in self._kept.items()
            if not kept.lane.learner.calibrated
            and key not in self.spare
            and now - kept.fit < SECONDS
        ]
        if not new:
            return
        serving = [
            kept.lane
            for key, kept in self._kept.items()
            if kept.candidate.barred is None and key not in self.spare
        ]
        for kept in new:
            if stands_back(kept.lane, serving):
                self.spare[kept.candidate.key] = UNMEASURED

    def _own_share(self, of: EngineCandidate, now: float) -> float:
        """The share of a processor that our own work may explain.

        An engine on a GPU hardly minds its processor's load.
        """
        if of.hardware is None or of.engine.launch.gpu_layers:
            return 1.0
        threads = 0
        for key, kept in self._kept.items():
            if key[0] != of.member:
                continue
            if self._busy(key):
                kept.worked = now
            if now - kept.worked < WORK_LINGERS:
                threads += kept.candidate.engine.launch.threads
        return min(1.0, threads / max(1, of.hardware.cpu.logical_cores))


def speed_key(each: EngineCandidate) -> SpeedKey:
    """What a learned speed belongs to."""
    engine = each.engine
    node = each.identity or each.member
    return SpeedKey(node, engine.build, engine.variant, _digest(engine.launch))


def _digest(launch: Launch) -> str:
    return blake2b(msgspec.json.encode(launch), digest_size=6).hexdigest()


def _host_cache(engine: EngineReport, holdings: PrefixCacheIndex) -> HostCache | None:
    queue = engine.launch.cache_ram_mib * MIB
    if not queue:
        return None
    # Models differ by ten; from Pi-sized to laptop-sized ones this is near it.
    per_token = 16 * 1024 * (1 + parameters(engine.variant))
    return HostCache(holdings, queue / per_token)
