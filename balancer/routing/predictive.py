"""Predictive policy: each request goes where it is answered soonest. Pure.

It puts the fleet's reports, the queued requests and what the wire shows of each answer
together for `Dispatcher`, which decides. What generates no text, such as
embeddings and counts of tokens, goes where fewest slots are busy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from math import ceil

from balancer.fleet.engines import EngineCandidate
from balancer.prediction.cost import cheapest
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.fleet_model import FleetModel
from balancer.routing.decision import Decision, Refuse, RoutingRequest, Send, Verdict
from balancer.routing.dispatcher import Assignment, Dispatcher, Turned
from balancer.routing.eligibility import EligibilityCache, Eligible, Explanation
from balancer.routing.least_busy import LeastBusy
from balancer.routing.queued_request import RETRY_AFTER, QueuedRequest, Settled
from balancer.routing.slot_counts import SlotCounts
from balancer.routing.tracking import AttemptTracker, Clock
from edgeserve.errors import FleetBusy

MOST_SLOTS = 1024
"""Every slot is remembered with what it holds. Where an engine has more, slots are not
what is scarce, and counting them is good enough for the whole fleet."""

MOST_PATIENCE = 600
"""Seconds; nobody should be told to come back tomorrow."""


class PredictivePolicy:
    """The prediction over the fleet, and what it makes of the requests that wait.

    `moved` is called when something is known better than before.
    """

    def __init__(
        self,
        slot_counts: SlotCounts,
        lanes: FleetModel,
        clock: Clock,
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        self.lanes = lanes
        self._slot_counts = slot_counts
        self._clock = clock
        self._moved = moved
        self._filter = EligibilityCache(lanes)
        self.dispatcher = Dispatcher(self._eligible, lanes.holdings)
        self._checked = True
        self._wide = False
        self._plain = LeastBusy(lambda: self._filter.candidates, slot_counts)

    def told(self, candidates: Sequence[EngineCandidate]) -> None:
        """The fleet changed."""
        few = [each for each in candidates if each.engine.slots <= MOST_SLOTS]
        self._wide = len(few) < len(candidates)
        self.lanes.sync(few, self._clock())
        self._filter.told(candidates)
        self._checked = False

    def refusal(
        self, request: QueuedRequest, now: float, *, full: bool
    ) -> Refuse | None:
        """Turn away what no engine can serve, and what would wait in vain."""
        need = request.need
        if self._wide or not need.generates:
            return self._plain.refusal(request, now, full=full)
        able = self._filter.able(need)
        if isinstance(able, Refuse):
            return able
        _price(request, able)
        turned = self.dispatcher.offer(request, now, full=full)
        if turned is None:
            return None
        return Refuse(_busy(turned), tuple(self.explain(request, now)))

    def assign(self, waiting: Collection[QueuedRequest], now: float) -> list[Settled]:
        """Settle the requests for which something can be done now."""
        priced = [each for each in waiting if each.priced]
        settled: list[Settled] = []
        if len(priced) < len(waiting):
            plain = [each for each in waiting if not each.priced]
            settled += self._plain.assign(plain, now)
        if not self._checked:
            self._checked = True
            hopeless = self._hopeless(priced)
            settled += hopeless.items()
            priced = [each for each in priced if each not in hopeless]
        settled += map(self._sent, self.dispatcher.assign(priced, now))
        return settled

    def explain(self, request: QueuedRequest, now: float) -> Iterable[Verdict]:
        """Say of each engine why a request waits for it, or cannot use it."""
        if not request.priced:
            return self._plain.explain(request, now)
        able = self._filter.able(request.need)
        if isinstance(able, Refuse):
            return able.verdicts
        return Explanation(able, self.dispatcher.weigh(request, now)[1])

    def forget(self, request: QueuedRequest) -> None:
        """A request waits no longer, and was not settled."""
        self.dispatcher.withdraw(request)

    def give_back(self, send: Send, *, left: bool = False) -> None:
        """Its slots are free, and what can be learned from it is learned."""
        key = send.to.key
        self._slot_counts.give_back(key, send.slots, left=left)
        if isinstance(send.course, AttemptTracker):
            send.course.over()
            if left:
                self.lanes.abandoned(key, send.course.slots)
        self.lanes.recount(key, self._clock())

    def settle(self, send: Send) -> None:
        """By now the engine has noticed that it left, unless its node says not."""
        self._slot_counts.settle(send.to.key)
        self.lanes.recount(send.to.key, self._clock())

    def patience(self, request: QueuedRequest, now: float) -> int:
        """Until a slot will come free for it."""
        best = self.dispatcher.choose(request, now) if request.priced else None
        return _seconds(best.wait) if best else RETRY_AFTER

    def idle(self, need: RoutingRequest) -> float | None:
        """Seconds to the first token on the best engine with a free slot, if any."""
        able = self._filter.able(need)
        if isinstance(able, Refuse):
            return None
        now = self._clock()
        request = QueuedRequest(need, _unheard, now)
        _price(request, able)
        best, _ = cheapest(self.dispatcher.question(request, now), able.lanes)
        return best.first if best and best.wait == 0 and best.slot >= 0 else None

    def _eligible(self, request: QueuedRequest) -> Sequence[EngineModel]:
        able = self._filter.able(request.need)
        return () if isinstance(able, Refuse) else able.lanes

    def _hopeless(
        self, waiting: Iterable[QueuedRequest]
    ) -> dict[QueuedRequest, Refuse]:
        """Find the requests that no engine can serve any more."""
        found = dict[QueuedRequest, Refuse]()
        for request in waiting:
            able = self._filter.able(request.need)
            if isinstance(able, Refuse):
                self.dispatcher.withdraw(request)
                found[request] = able
        return found

    def _sent(self, bound: Assignment) -> Settled:
        request, lane = bound.request, bound.lane
        able = self._filter.able(request.need)
        assert isinstance(able, Eligible)  # noqa: S101 - or there were no lanes
        to = able.by_lane[lane.name]
        key, slots = to.key, request.need.slots
        self._slot_counts.take(key, slots)
        course = AttemptTracker(self.dispatcher, bound, self._clock, self._moved)
        verdicts = Explanation(able, bound.seen, bound.parts)
        return request, Send(to, slots, verdicts, course)


def _price(request: QueuedRequest, able: Eligible) -> None:
    """Note down what the prediction needs to know of a request."""
    need, lanes = request.need, able.lanes
    request.priced = True
    request.model = lanes[0].model if lanes else need.model
    request.slots = min(need.slots, min((lane.slots for lane in lanes), default=1))
    request.deadline = need.deadline if able.measured else None


def _unheard(decision: Decision) -> None:
    """Keep nothing."""


def _busy(turned: Turned) -> FleetBusy:
    retry_after = _seconds(turned.retry_after)
    return FleetBusy(
        retry_after,
        f"{turned.why}: its first token would come in {turned.predicted:.1f} s",
    )


def _seconds(predicted: float) -> int:
    return min(max(1, ceil(predicted)), MOST_PATIENCE)
