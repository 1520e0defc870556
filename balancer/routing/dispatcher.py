"""Dispatcher: assign waiting requests to engines, as late as possible. Pure.

Requests are bound late. One whose best engine is busy waits for it here, counts on its
next slot, and is asked again whenever something changes: it may wait two seconds for
the GPU box rather than start a minute's work on a Pi.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from math import ceil, inf

from balancer.dialects.timings import Timings
from balancer.prediction.cost import Considered, CostEstimate, cheapest
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.prefix_cache import PrefixCacheIndex
from balancer.prediction.running import RunningRequest
from balancer.prediction.slot_match import RequestFeatures, asked
from balancer.prediction.workload import Workload
from balancer.routing.fairness import FairOrder
from balancer.routing.queued_request import QueuedRequest

LOOK = 32
"""How many of the waiting are asked again when something changes."""

LOOK_SECONDS = 0.02
"""Those who find no idle slot are asked no more often: it changes only their order."""

ENOUGH = 32
LEARN_SECONDS = 0.02
"""An engine that has taught us so many answers need not teach us more than fifty a
second: where hundreds come and go, learning from each would cost more than it is worth.
"""

SESSIONS = 1024
"""Most sessions named by clients whose slot is remembered."""

NEAR = 0.2
"""A hit that differs less from what was predicted ended where it was predicted to."""


@dataclass(slots=True, eq=False, kw_only=True)
class Assignment(RunningRequest):
    """A running request, with the queued request that it was, its engine and its price.

    `seen` is what was found about each engine.
    """

    request: QueuedRequest
    lane: EngineModel
    parts: CostEstimate
    seen: Considered


@dataclass(frozen=True, slots=True)
class Turned:
    """A request that is turned away; `retry_after` whole seconds hence it may fit."""

    predicted: float
    retry_after: int
    why: str


FindEligible = Callable[[QueuedRequest], Sequence[EngineModel]]


@dataclass(slots=True)
class Dispatcher:
    """The state of the decision.

    `eligible` says which engines can serve a request at all, quick ones first.
    """

    eligible: FindEligible
    holdings: PrefixCacheIndex = field(default_factory=PrefixCacheIndex)
    order: FairOrder = field(default_factory=FairOrder)
    workloads: dict[str, Workload] = field(default_factory=dict[str, Workload])
    sessions: OrderedDict[str, int] = field(default_factory=OrderedDict[str, int])
    _looked: float = -inf

    def workload(self, model: str) -> Workload:
        """What is known of a model's requests."""
        if model not in self.workloads:
            self.workloads[model] = Workload()
        return self.workloads[model]

    def offer(
        self, request: QueuedRequest, now: float, *, full: bool = False
    ) -> Turned | None:
        """Look at a request that arrives; say why, if it would wait in vain.

        `full`: there is no room to wait.
        """
        workload, prompt = self.workload(request.model), request.need.prompt
        if workload.returns.asked(prompt, now):
            workload.learn_kept(self.holdings.beginnings(prompt) != 0)
        if not full and request.deadline is None:
            return None
        best = self.choose(request, now)
        if best is None:
            return None
        late = 0.0 if request.deadline is None else now + best.first - request.deadline
        if late > 0:
            return Turned(best.first, ceil(late), "it would be too late")
        if full and best.wait > 0:
            return Turned(best.first, ceil(best.wait), "the queue is full")
        return None

    def withdraw(self, request: QueuedRequest) -> None:
        """A request counts on no slot any longer."""
        if request.target is not None:
            request.target.release()
            request.target = None

    def assign(
        self, waiting: Collection[QueuedRequest], now: float
    ) -> list[Assignment]:
        """Start whatever should start now. Call it after everything that changes."""
        if not waiting or not self.holdings.idle:
            return []
        thorough = now - self._looked >= LOOK_SECONDS
        if thorough:
            self._looked = now
        bound: list[Assignment] = []
        fresh = set[str]()
        for request in self.order.ranked(list(waiting), now)[:LOOK]:
            if not (thorough or self.holdings.idle):
                break
            self.withdraw(request)
            lanes = self.eligible(request)
            _refresh(lanes, fresh, now)
            question = self.question(request, now)
            best, seen = cheapest(question, lanes)
            if best is None:
                continue
            request.read = best.read
            if best.wait > 0 or best.slot < 0:
                request.target = best.lane
                best.lane.reserve(now, best.ahead + best.read + best.write)
            else:
                bound.append(self._bind(request, question, best, seen))
        return bound

    def choose(self, request: QueuedRequest, now: float) -> CostEstimate | None:
        """The engine that costs least, free or not; None where none can."""
        return self.weigh(request, now)[0]

    def weigh(
        self, request: QueuedRequest, now: float
    ) -> tuple[CostEstimate | None, Considered]:
        """The same, with what was found about every engine."""
        lanes = self.eligible(request)
        _refresh(lanes, set(), now)
        return cheapest(self.question(request, now), lanes)

    def question(self, request: QueuedRequest, now: float) -> RequestFeatures:
        """Find out once what the prices of all engines need."""
        need = request.need
        return asked(
            need.prompt,
            self.workload(request.model),
            self.holdings,
            now,
            slots=request.slots,
            budget=need.budget,
            tokens=request.tokens,
            answer=request.answer,
            hint=self.sessions.get(need.session, -1) if need.session else -1,
        )

    def _bind(
        self,
        request: QueuedRequest,
        question: RequestFeatures,
        best: CostEstimate,
        seen: Considered,
    ) -> Assignment:
        lane, now, need = best.lane, question.now, request.need
        place = lane.places[best.slot]
        # What a conversation was until now, in other slots, is of no more use.
        self.holdings.supersede(need.prompt)
        bound = Assignment(
            request=request,
            lane=lane,
            parts=best,
            seen=seen,
            prompt=need.prompt,
            slot=best.slot,
            tokens=best.tokens,
            cached=best.cached,
            answer=question.answer,
            started=now,
            reading=best.read / lane.scale,
            others=_further_slots(lane, best.slot, request.slots),
            # With a host cache the hit may not be what the slot held.
            depth=question.depth(1 << place) if lane.host is None else 0,
        )
        lane.start(bound, now)
        self.order.charge(request.client, best.read + best.write, now)
        if need.session:
            self._remember(need.session, place)
        return bound

    def _remember(self, session: str, place: int) -> None:
        self.sessions[session] = place
        self.sessions.move_to_end(session)
        if len(self.sessions) > SESSIONS:
            self.sessions.popitem(last=False)

    def began(self, bound: Assignment, now: float, tokens: int, cached: int) -> None:
        """An engine begins a prompt, and says how long it is and how much it had."""
        self._count(bound, tokens, cached)
        bound.lane.began(bound, now, tokens, cached)

    def _count(self, bound: Assignment, tokens: int, cached: int) -> None:
        """Learn how many tokens the prompt is, and its part that was cached."""
        prompt, blocks = bound.prompt, bound.prompt.blocks
        workload = self.workload(bound.request.model)
        lengths = workload.lengths
        if blocks:
            lengths.learn_frame(prompt, workload.tokens_per_byte, tokens)
            lengths.learn(blocks[-1], tokens)
        near = abs(cached - bound.cached) < NEAR * bound.cached
        if 0 < bound.depth < len(blocks) and near:
            lengths.learn(blocks[bound.depth - 1], cached)

    def ended(
        self, bound: Assignment, now: float, timings: Timings, *, counted: bool = True
    ) -> None:
        """Learn from an answer that came to its end.

        `counted` says whether the engine told of its prompt when it began.
        """
        request, lane = bound.request, bound.lane
        tokens = max(1, timings.cached + timings.prompt)
        if not counted:
            lane.counted(bound, tokens, timings.cached)
        lane.end(bound, now, timings.predicted)
        workload, need = self.workload(request.model), request.need
        workload.returns.answered(need.prompt, now)
        if lane.learner.samples > ENOUGH and now - lane.learned < LEARN_SECONDS:
            return
        lane.learned = now
        if not counted:
            self._count(bound, tokens, timings.cached)
        lane.learner.learn(lane.sample(bound, now, timings))
        workload.learn_prompt(timings.cached + timings.prompt, need.prompt.size)
        workload.learn_answer(need.prompt.head, need.budget, timings.predicted)
        lane.stale = True


def _further_slots(lane: EngineModel, slot: int, slots: int) -> tuple[int, ...]:
    if slots == 1:
        return ()
    return tuple([each for each in lane.idle_slots() if each != slot][: slots - 1])


def _refresh(lanes: Sequence[EngineModel], fresh: set[str], now: float) -> None:
    for lane in lanes:
        if lane.name not in fresh:
            fresh.add(lane.name)
            lane.refresh(now)
