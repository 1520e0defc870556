"""Dispatcher: assign waiting requests to engines, as late as possible. Pure.

A request whose best engine is busy waits for it, reserves its next slot, and is
reconsidered whenever something changes: it may wait two seconds for a GPU rather than
start a minute's work on a Pi.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from math import ceil, inf

from balancer.dialects.timings import Timings
from balancer.prediction.cost import Considered, CostEstimate
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.large.search import Searched, find_cheapest
from balancer.prediction.prefix_cache import CachedPrefix, PrefixCacheIndex
from balancer.prediction.running import RunningRequest
from balancer.prediction.slot_match import RequestFeatures, features_of
from balancer.prediction.workload import Workload
from balancer.routing.affinity import is_worth_keeping
from balancer.routing.fairness import FairOrder
from balancer.routing.queued_request import QueuedRequest

LOOK = 32
"""How many waiting requests are reconsidered when something changes."""

LOOK_SECONDS = 0.02
"""While no slot is idle they are reconsidered no more often than this."""

ENOUGH = 32
LEARN_SECONDS = 0.02
"""An engine with so many samples is learned from at most fifty times a second:
learning from each of hundreds of answers costs more than it is worth."""

MISSED = 0.2
"""Seconds that losing what a slot holds may cost, from which it may be saved first."""

SESSIONS = 1024
"""Most client sessions whose last slot is remembered."""

NEAR = 0.2
"""A cache hit within this share of the prediction ended at the predicted block."""


class Assignment(RunningRequest, eq=False, kw_only=True):
    """A running request, with its queued request, its engine and its estimate.

    `considered` is what was found about each engine. `replaced` is what its slot held,
    where that may be missed.
    """

    request: QueuedRequest
    engine: EngineModel
    estimate: CostEstimate
    considered: Considered
    replaced: CachedPrefix | None = None


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """Why a request is refused; it may be served after `retry_after` whole seconds."""

    predicted: float
    retry_after: int
    why: str


FindEligible = Callable[[QueuedRequest], Searched]


@dataclass(slots=True)
class Dispatcher:
    """Assigns requests, and learns from their answers.

    `eligible` returns the engines that can serve a request at all, fast ones first.
    """

    eligible: FindEligible
    cache_index: PrefixCacheIndex = field(default_factory=PrefixCacheIndex)
    order: FairOrder = field(default_factory=FairOrder)
    workloads: dict[str, Workload] = field(default_factory=dict[str, Workload])
    sessions: OrderedDict[str, int] = field(default_factory=OrderedDict[str, int])
    _considered_at: float = -inf

    def workload(self, model: str) -> Workload:
        """What is known about the requests for a model."""
        if model not in self.workloads:
            self.workloads[model] = Workload()
        return self.workloads[model]

    def offer(
        self, request: QueuedRequest, now: float, *, full: bool = False
    ) -> TurnedAway | None:
        """Consider a new request; return why it is refused, if waiting is useless.

        `full`: the queue is full.
        """
        workload, prompt = self.workload(request.model), request.routing.prompt
        if workload.returns.arrived(prompt, now):
            workload.learn_kept(self.cache_index.beginnings(prompt) != 0)
        if not full and request.deadline is None:
            return None
        best = self.choose(request, now)
        if best is None:
            return None
        late = 0.0 if request.deadline is None else now + best.first - request.deadline
        if late > 0:
            return TurnedAway(best.first, ceil(late), "it would be too late")
        if full and best.wait > 0:
            return TurnedAway(best.first, ceil(best.wait), "the queue is full")
        return None

    def withdraw(self, request: QueuedRequest) -> None:
        """Drop the reservation of a request."""
        if request.target is not None:
            request.target.release()
            request.target = None

    def assign(
        self, waiting: Collection[QueuedRequest], now: float
    ) -> list[Assignment]:
        """Start the requests that should start now. Call it after every change."""
        if not waiting or not self.cache_index.idle:
            return []
        # What waits for a load must not fill the look at those that could start.
        waiting = [each for each in waiting if self.eligible(each)]
        thorough = now - self._considered_at >= LOOK_SECONDS
        if thorough:
            self._considered_at = now
        self._weigh_anew(waiting, now)
        assignments: list[Assignment] = []
        refreshed = set[str]()
        for request in self.order.ranked(waiting, now)[:LOOK]:
            if not (thorough or self.cache_index.idle):
                break
            self.withdraw(request)
            features = self.features(request, now)
            engines = self.eligible(request)
            best, considered = find_cheapest(features, engines, refreshed)
            if best is None:
                continue
            request.work = best.work
            if self._must_wait(request, features, best):
                request.target = best.engine
                best.engine.reserve(now, best.ahead + best.read + best.write)
            else:
                assignments.append(self._start(request, features, best, considered))
        return assignments

    def _weigh_anew(self, waiting: Sequence[QueuedRequest], now: float) -> None:
        """Predict the work of each, as if it were next: their order depends on it."""
        if len(waiting) < 2:
            return
        refreshed = set[str]()
        for request in waiting:
            self.withdraw(request)
        # Those that have just come have no work yet, and so are among the first.
        for request in self.order.ranked(waiting, now)[:LOOK]:
            features, engines = self.features(request, now), self.eligible(request)
            best, _ = find_cheapest(features, engines, refreshed)
            if best is not None:
                request.work = best.work

    def _must_wait(
        self, request: QueuedRequest, features: RequestFeatures, best: CostEstimate
    ) -> bool:
        """Whether its slot is busy, or kept for the conversation that it holds."""
        if best.wait > 0 or best.slot < 0:
            return True
        return is_worth_keeping(features, best) and not self.order.outranks_returning(
            request, features.now
        )

    def choose(self, request: QueuedRequest, now: float) -> CostEstimate | None:
        """The engine that costs least, free or not; None where none can."""
        return self.weigh(request, now)[0]

    def weigh(
        self, request: QueuedRequest, now: float
    ) -> tuple[CostEstimate | None, Considered]:
        """Like `choose`, with what was found about every engine."""
        features, engines = self.features(request, now), self.eligible(request)
        return find_cheapest(features, engines, set())

    def features(self, request: QueuedRequest, now: float) -> RequestFeatures:
        """Compute once what the cost on every engine needs."""
        routing = request.routing
        return features_of(
            routing.prompt,
            self.workload(request.model),
            self.cache_index,
            now,
            slots=request.slots,
            budget=routing.budget,
            tokens=request.tokens,
            answer=request.answer,
            hint=self.sessions.get(routing.session, -1) if routing.session else -1,
        )

    def _start(
        self,
        request: QueuedRequest,
        features: RequestFeatures,
        best: CostEstimate,
        considered: Considered,
    ) -> Assignment:
        engine, now, routing = best.engine, features.now, request.routing
        place = engine.places[best.slot]
        # Earlier states of the conversation, in other slots, are of no more use.
        self.cache_index.supersede(routing.prompt)
        assignment = Assignment(
            request=request,
            engine=engine,
            estimate=best,
            considered=considered,
            prompt=routing.prompt,
            slot=best.slot,
            tokens=best.tokens,
            cached=best.cached,
            answer=features.answer,
            started=now,
            reading=best.read / engine.scale,
            others=_further_slots(engine, best.slot, request.slots),
            client=request.client,
            # With a host cache the hit may not come from the slot.
            depth=features.depth(1 << place) if engine.host is None else 0,
            replaced=self.cache_index.contents[place] if best.loss > MISSED else None,
        )
        engine.start(assignment, now)
        self.order.charge(request.client, best.read + best.write, now)
        if routing.session:
            self._remember(routing.session, place)
        return assignment

    def _remember(self, session: str, place: int) -> None:
        self.sessions[session] = place
        self.sessions.move_to_end(session)
        if len(self.sessions) > SESSIONS:
            self.sessions.popitem(last=False)

    def began(
        self, assignment: Assignment, now: float, tokens: int, cached: int
    ) -> None:
        """Note that an engine begins a prompt: its length, and how much was cached."""
        self._count(assignment, tokens, cached)
        assignment.engine.began(assignment, now, tokens, cached)

    def _count(self, assignment: Assignment, tokens: int, cached: int) -> None:
        """Learn how many tokens the prompt has, and how many its cached part."""
        prompt, blocks = assignment.prompt, assignment.prompt.blocks
        workload = self.workload(assignment.request.model)
        lengths = workload.lengths
        if blocks:
            lengths.learn_frame(prompt, workload.tokens_per_byte, tokens)
            lengths.learn(blocks[-1], tokens)
        near = abs(cached - assignment.cached) < NEAR * assignment.cached
        if 0 < assignment.depth < len(blocks) and near:
            lengths.learn(blocks[assignment.depth - 1], cached)

    def ended(
        self,
        assignment: Assignment,
        now: float,
        timings: Timings,
        *,
        counted: bool = True,
    ) -> None:
        """Learn from a complete answer.

        `counted`: the engine reported the length of the prompt when it began.
        """
        request, engine = assignment.request, assignment.engine
        tokens = max(1, timings.cached + timings.prompt)
        if not counted:
            engine.counted(assignment, tokens, timings.cached)
        engine.end(assignment, now, timings.predicted)
        workload, routing = self.workload(request.model), request.routing
        workload.returns.answered(routing.prompt, request.client, now)
        if engine.learner.samples > ENOUGH and now - engine.learned < LEARN_SECONDS:
            return
        engine.learned = now
        if not counted:
            self._count(assignment, tokens, timings.cached)
        engine.learner.learn(assignment.sample(now, timings, engine.scale))
        workload.learn_prompt(timings.cached + timings.prompt, routing.prompt.size)
        workload.learn_answer(routing.prompt.head, routing.budget, timings.predicted)
        engine.stale = True


def _further_slots(engine: EngineModel, slot: int, slots: int) -> tuple[int, ...]:
    if slots == 1:
        return ()
    return tuple([each for each in engine.idle_slots() if each != slot][: slots - 1])
