"""Predictive policy: each request goes to the engine that answers it soonest. Pure.

It hands the fleet's reports, the queued requests and the progress of answers to
`Dispatcher`, which decides. Requests that generate no text, such as embeddings and
counts of tokens, go to the engine with the fewest busy slots.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from math import ceil

from msgspec import structs

from balancer.fleet.engines import EngineCandidate, EngineKey
from balancer.fleet.slot_counts import SlotCounts
from balancer.prediction.cost import CostEstimate, cheapest
from balancer.prediction.energy.choice import Find, Frugal
from balancer.prediction.energy.joules import EnergyBook
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.fleet_model import FleetModel
from balancer.prediction.large.search import Searched, find_cheapest
from balancer.routing.decision import Refuse, RoutingRequest, Send, Verdict
from balancer.routing.dispatcher import Assignment, Dispatcher, TurnedAway
from balancer.routing.eligibility import EligibilityCache, Eligible, Explanation
from balancer.routing.fairness import FairOrder
from balancer.routing.least_busy import LeastBusy
from balancer.routing.moving import Move, Remaining, pays, price
from balancer.routing.queued_request import (
    RETRY_AFTER,
    QueuedRequest,
    Settled,
    ignore,
)
from balancer.routing.tracking import AttemptTracker, Clock
from edgeserve.errors import FleetBusy

MOST_SLOTS = 1024
"""The content of every slot is remembered. Where an engine has more slots than this,
slots are not scarce, and counting them is good enough for the whole fleet."""

MOST_PATIENCE = 600
"""Seconds; the longest `Retry-After`."""


class PredictivePolicy:
    """Routes by prediction over the whole fleet.

    `moved` is called when a prediction has become more exact.
    """

    def __init__(
        self,
        slot_counts: SlotCounts,
        fleet_model: FleetModel,
        clock: Clock,
        moved: Callable[[], None] = lambda: None,
        order: FairOrder | None = None,
        find: Find = find_cheapest,
    ) -> None:
        self.fleet_model = fleet_model
        self._preference = find.preference if isinstance(find, Frugal) else None
        self.energy = EnergyBook(fleet_model.get, fleet_model.worked_at)
        self._slot_counts = slot_counts
        self._clock = clock
        self._moved = moved
        self._eligibility = EligibilityCache(fleet_model)
        self.dispatcher = Dispatcher(
            _engines, fleet_model.cache_index, order or FairOrder(), find=find
        )
        self._checked = True
        self._many_slots = False
        self._least_busy = LeastBusy(lambda: self._eligibility.candidates, slot_counts)

    def update(self, candidates: Sequence[EngineCandidate]) -> None:
        """Take in a change of the fleet."""
        few = [each for each in candidates if each.engine.slots <= MOST_SLOTS]
        self._many_slots = len(few) < len(candidates)
        self.fleet_model.sync(few, self._clock())
        self._eligibility.update(candidates)
        self._checked = False

    def refusal(
        self, request: QueuedRequest, now: float, *, full: bool
    ) -> Refuse | None:
        """Refuse what no engine can serve, and what would wait in vain."""
        routing = request.routing
        if self._many_slots or not routing.generates:
            return self._least_busy.refusal(request, now, full=full)
        eligible = self._eligibility.find(routing)
        if isinstance(eligible, Refuse):
            return eligible
        _price(request, eligible)
        rejected = self.dispatcher.offer(request, now, full=full)
        if rejected is None:
            return None
        return Refuse(_busy(rejected), tuple(self.explain(request, now)))

    def assign(self, waiting: Collection[QueuedRequest], now: float) -> list[Settled]:
        """Settle the requests that can start now or that no engine can serve."""
        priced = [each for each in waiting if each.eligible]
        settled: list[Settled] = []
        if len(priced) < len(waiting):
            plain = [each for each in waiting if not each.eligible]
            settled += self._least_busy.assign(plain, now)
        if not self._checked:
            self._checked = True
            unservable = self._unservable(priced)
            settled += unservable.items()
            priced = [each for each in priced if each not in unservable]
        settled += map(self._send, self.dispatcher.assign(priced, now))
        return settled

    def explain(self, request: QueuedRequest, now: float) -> Iterable[Verdict]:
        """Say for each engine why a request waits for it, or cannot use it."""
        if request.eligible is None:
            return self._least_busy.explain(request, now)
        eligible = self._eligibility.find(request.routing)
        if isinstance(eligible, Refuse):
            return eligible.verdicts
        request.eligible = eligible
        return Explanation(eligible, self.dispatcher.weigh(request, now)[1])

    def recheck(self) -> None:
        """Look again, the next time, at what can serve each request."""
        self._checked = False

    def forget(self, request: QueuedRequest) -> None:
        """Forget a request that stopped waiting without a decision."""
        self.dispatcher.withdraw(request)

    def give_back(self, send: Send, *, left: bool = False) -> None:
        """Free its slots, and learn from its answer."""
        key = send.to.key
        self._slot_counts.give_back(key, send.slots, left=left)
        held: tuple[int, ...] = ()
        if isinstance(send, AttemptTracker):
            send.over()
            held = send.engine_slots if left else ()
        self.fleet_model.recount(key, self._clock(), held)

    def settle(self, send: Send) -> None:
        """Trust the last report on a slot whose client left."""
        self._slot_counts.settle(send.to.key)
        self.fleet_model.recount(send.to.key, self._clock())

    def patience(self, request: QueuedRequest, now: float) -> int:
        """Seconds until a slot comes free for it."""
        best = self.dispatcher.choose(request, now) if request.eligible else None
        return _seconds(best.wait) if best else RETRY_AFTER

    def idle(self, routing: RoutingRequest, but: EngineKey) -> float | None:
        """Seconds to the first token on the best other engine with a free slot."""
        candidates = self._eligibility.candidates
        tried = {each.incarnation for each in candidates if each.key == but}
        routing = structs.replace(routing, tried=routing.tried | tried)
        eligible = self._eligibility.find(routing)
        if isinstance(eligible, Refuse):
            return None
        request = self._supposed(routing, eligible)
        features = self.dispatcher.features(request, request.arrived)
        best, _ = find_cheapest(features, eligible.searched, set())
        return best.first if best and best.wait == 0 and best.slot >= 0 else None

    def eligible(self, routing: RoutingRequest) -> Eligible | Refuse:
        """The engines that can serve a request now or soon, or why none can."""
        return self._eligibility.find(routing)

    def expected(
        self, routing: RoutingRequest, eligible: Eligible
    ) -> CostEstimate | None:
        """What it would take if it came now; None where nothing is predicted."""
        if self._many_slots or not routing.generates:
            return None
        request = self._supposed(routing, eligible)
        return self.dispatcher.choose(request, request.arrived)

    def idle_pace(self, model: str) -> float | None:
        """Least seconds per token on the measured engines with a free slot, if any."""
        return min(
            (
                engine.per_token
                for engine in self.fleet_model.all()
                if engine.model == model and _takes_moves(engine)
            ),
            default=None,
        )

    def move(self, routing: RoutingRequest, left: Remaining) -> Move | None:
        """Where else a running request should go on, if that pays."""
        eligible = self._eligibility.find(routing)
        if isinstance(eligible, Refuse):
            return None
        request = self._supposed(routing, eligible)
        request.tokens, request.answer = left.prompt, left.answer
        engines = [each for each in eligible.engines if _takes_moves(each)]
        for each in engines:
            each.refresh(request.arrived)
        features = self.dispatcher.features(request, request.arrived)
        best, _ = cheapest(features, engines)
        if best is None or best.wait > 0 or best.slot < 0:
            return None
        there = best.first + best.write
        if not pays(left.seconds, there, price(best)):
            return None
        if self._preference and not self._preference.late(left.seconds, there):
            return None  # it is where it is to save energy
        to = eligible.candidate_by_name[best.engine.name]
        return Move(left.seconds, there, to)

    def _supposed(self, routing: RoutingRequest, eligible: Eligible) -> QueuedRequest:
        """Return a request as if it came now; it is not queued."""
        request = QueuedRequest(routing, ignore, self._clock())
        _price(request, eligible)
        return request

    def _unservable(
        self, waiting: Iterable[QueuedRequest]
    ) -> dict[QueuedRequest, Refuse]:
        """Look again at what can serve each; return those that nothing can now."""
        found = dict[QueuedRequest, Refuse]()
        for request in waiting:
            eligible = self._eligibility.find(request.routing)
            if isinstance(eligible, Refuse):
                self.dispatcher.withdraw(request)
                found[request] = eligible
            else:
                # Engines that have loaded meanwhile decide about its model and slots.
                _price(request, eligible)
        return found

    def _send(self, assignment: Assignment) -> Settled:
        request = assignment.request
        eligible = request.eligible
        assert eligible is not None  # noqa: S101 - else there was no engine
        engine = assignment.engine
        send = AttemptTracker(
            to=eligible.candidate_by_name[engine.name],
            slots=request.routing.slots,
            slot=assignment.slot if engine.pins else None,
            first_seconds=assignment.estimate.first,
            dispatcher=self.dispatcher,
            assignment=assignment,
            eligible=eligible,
            clock=self._clock,
            moved=self._moved,
        )
        self._slot_counts.take(send.to.key, send.slots)
        return request, send


def _takes_moves(engine: EngineModel) -> bool:
    """Whether it has a slot that no request wants or waits for, and is no guess."""
    free = engine.taken < engine.slots and not engine.queued
    return free and engine.learner.calibrated


def _engines(request: QueuedRequest) -> Searched:
    return request.eligible.searched if request.eligible else ()


def _price(request: QueuedRequest, eligible: Eligible) -> None:
    """Note what the prediction needs to know about a request."""
    routing, engines = request.routing, eligible.engines
    request.eligible = eligible
    request.model = engines[0].model if engines else routing.model
    request.slots = min(routing.slots, eligible.least_slots)
    if routing.deadline is not None and not eligible.measured:
        request.deadline = None


def _busy(rejected: TurnedAway) -> FleetBusy:
    retry_after = _seconds(rejected.retry_after)
    return FleetBusy(
        retry_after,
        f"{rejected.why}: its first token would come in {rejected.predicted:.1f} s",
    )


def _seconds(predicted: float) -> int:
    return min(max(1, ceil(predicted)), MOST_PATIENCE)
