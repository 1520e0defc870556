"""Balancer state: the parts that all others share, and the requests in flight."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from balancer.composition.prospects import Prospects
from balancer.composition.table import RouteTable
from balancer.fleet.changes import Changes
from balancer.fleet.current import LiveFleet
from balancer.fleet.slot_counts import SlotCounts
from balancer.groups.planner import GroupPlanner
from balancer.health.breaker import CircuitBreakers
from balancer.health.loads import LoadFaults
from balancer.health.poison import Poison
from balancer.prediction import conditions
from balancer.prediction.energy.choice import finder
from balancer.prediction.fleet_model import FleetModel
from balancer.prediction.prefix_cache import PrefixCacheIndex
from balancer.queue import RequestQueue
from balancer.routing.affinity import is_worth_keeping
from balancer.routing.fairness import FairOrder
from balancer.routing.least_busy import LeastBusy
from balancer.routing.predictive import PredictivePolicy
from balancer.telemetry.metrics import Metrics
from balancer.telemetry.records import RequestLog
from balancer.telemetry.serving import ModelLoad, model_loads
from balancer.validation.grammar_text import Caps
from balancer.validation.limits import CAPS, caps_of
from edgeserve.config.settings import BalancerSettings
from edgeserve.errors import Draining


@dataclass
class InFlight:
    """Counts the requests in flight, and refuses new ones while it drains."""

    draining: bool = False
    inside: int = 0
    _empty: asyncio.Event = field(default_factory=asyncio.Event)

    def __enter__(self) -> None:
        """Count one request for the length of the block, or raise Draining."""
        if self.draining:
            raise Draining("balancer")
        self.inside += 1

    def __exit__(self, *_: object) -> None:
        """Stop counting it."""
        self.inside -= 1
        if self.inside == 0:
            self._empty.set()

    async def drained(self, seconds: float) -> bool:
        """Refuse new requests and wait for the others; False if that takes too long."""
        self.draining = True
        if self.inside == 0:
            return True
        self._empty.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._empty.wait()
        return False


@dataclass(frozen=True, kw_only=True)
class BalancerState:
    """The shared parts of a balancer. `predictive` exists with either policy.

    `key` is for the hashes of prompts; each process has its own.
    """

    current: LiveFleet
    queue: RequestQueue
    predictive: PredictivePolicy
    groups: GroupPlanner
    slot_counts: SlotCounts
    breakers: CircuitBreakers
    load_faults: LoadFaults
    in_flight: InFlight
    records: RequestLog
    metrics: Metrics
    routes: RouteTable
    prospects: Prospects
    caps: Caps = CAPS
    poison: Poison = field(default_factory=Poison)
    key: bytes = field(default_factory=lambda: secrets.token_bytes(16), repr=False)

    def model_loads(self) -> dict[str, ModelLoad]:
        """Return what each model of the fleet has to do now."""
        return model_loads(
            (
                (each, self.slot_counts.busy(each.key))
                for each in self.current.candidates
            ),
            self.predictive.fleet_model,
            (each.model or each.routing.model for each in self.queue.requests),
        )


def build_state(
    settings: BalancerSettings, say: Callable[[str], None]
) -> BalancerState:
    """Build it: a change of the fleet updates the slot counts, then wakes the queue."""
    judged, known_better = Changes(), Changes()
    breakers, slot_counts = CircuitBreakers(judged.notify), SlotCounts()
    faults = LoadFaults(judged.notify)
    predictive = _predictive(settings, slot_counts, known_better)
    groups = GroupPlanner(predictive.fleet_model, automatic=settings.groups == "auto")
    current = LiveFleet(
        say, lambda each: breakers.ranked(faults.judged(each)), groups.grouped
    )
    simple = LeastBusy(lambda: current.candidates, slot_counts)
    queue = RequestQueue(
        predictive if settings.policy == "predict" else simple,
        limit=settings.queue,
        seconds=settings.queue_seconds,
    )
    judged.subscribe(current.judge)
    known_better.subscribe(queue.moved)
    current.listen(lambda: slot_counts.update(current.candidates, breakers.reserved))
    current.listen(lambda: predictive.update(current.candidates))
    current.listen(queue.changed)
    return BalancerState(
        current=current,
        queue=queue,
        predictive=predictive,
        groups=groups,
        slot_counts=slot_counts,
        breakers=breakers,
        load_faults=faults,
        in_flight=InFlight(),
        records=RequestLog(),
        metrics=Metrics(),
        routes=RouteTable(settings.routes, settings.state_dir),
        prospects=Prospects(
            predictive=predictive,
            busy=slot_counts.busy,
            ahead=queue.ahead,
            predicts=settings.policy == "predict",
        ),
        caps=caps_of(settings),
    )


def _predictive(
    settings: BalancerSettings, slot_counts: SlotCounts, known_better: Changes
) -> PredictivePolicy:
    policy = conditions.MachinePolicy(
        on_battery=settings.on_battery,
        low_percent=settings.low_battery,
        owner_first=settings.owner_first,
    )
    fleet_model = FleetModel(
        PrefixCacheIndex(),
        slot_counts,
        policy=policy,
        calibrates=settings.calibrate,
    )
    return PredictivePolicy(
        slot_counts,
        fleet_model,
        time.monotonic,
        known_better.notify,
        FairOrder(settings.overtake),
        finder(settings.prefer, is_worth_keeping),
    )
