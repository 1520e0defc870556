"""Who goes where now: engines, a waiting room, and what is learned on the way. Pure.

Requests are bound late. One whose best engine is busy waits for it here, counts on its
next slot, and is asked again whenever something changes: it may wait two seconds for
the GPU box rather than start a minute's work on a Pi.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil, inf

from balancer.holdings import Holdings
from balancer.lane import Job, Lane, Timings
from balancer.order import Order
from balancer.parts import Parts
from balancer.predict import Seen, cheapest
from balancer.question import Ask, Question, asked
from balancer.workload import Workload

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


@dataclass(frozen=True, slots=True)
class Bound:
    """A request that starts on an engine now; `seen` is what was found about each."""

    ask: Ask
    lane: Lane
    job: Job
    parts: Parts
    seen: Seen


@dataclass(frozen=True, slots=True)
class Turned:
    """A request that is turned away; `retry_after` whole seconds hence it may fit."""

    ask: Ask
    predicted: float
    retry_after: int
    why: str


Eligible = Callable[[Ask], Sequence[Lane]]


@dataclass(slots=True)
class Dispatch:
    """The state of the decision. `room` is how many may wait.

    `eligible` says which engines can serve a request at all, quick ones first.
    """

    eligible: Eligible
    room: int = 256
    holdings: Holdings = field(default_factory=Holdings)
    order: Order = field(default_factory=Order)
    waiting: dict[Ask, None] = field(default_factory=dict[Ask, None])
    workloads: dict[str, Workload] = field(default_factory=dict[str, Workload])
    sessions: OrderedDict[str, int] = field(default_factory=OrderedDict[str, int])
    _looked: float = -inf

    def workload(self, model: str) -> Workload:
        """What is known of a model's requests."""
        if model not in self.workloads:
            self.workloads[model] = Workload()
        return self.workloads[model]

    def offer(self, ask: Ask, now: float) -> Turned | None:
        """Take a request in, unless it would wait in vain. Then call `assign`.

        There is always room for one that an engine has failed.
        """
        workload = self.workload(ask.model)
        if workload.returns.asked(ask.prompt, now):
            workload.learn_kept(self.holdings.beginnings(ask.prompt) != 0)
        full = len(self.waiting) >= self.room and not ask.again
        if full or ask.deadline is not None:
            turned = self._hopeless(ask, full, now)
            if turned is not None:
                return turned
        self.waiting[ask] = None
        return None

    def _hopeless(self, ask: Ask, full: bool, now: float) -> Turned | None:
        best = self.choose(ask, now)
        if best is None:
            return None
        late = 0.0 if ask.deadline is None else now + best.first - ask.deadline
        if late > 0:
            return Turned(ask, best.first, ceil(late), "it would be too late")
        if full and best.wait > 0:
            return Turned(ask, best.first, ceil(best.wait), "the queue is full")
        return None

    def withdraw(self, ask: Ask) -> None:
        """A request waits no longer: its client left, or its time is over."""
        self.waiting.pop(ask, None)
        _untarget(ask)

    def assign(self, now: float) -> list[Bound]:
        """Start whatever should start now. Call it after everything that changes."""
        if not self.waiting or not self.holdings.idle:
            return []
        thorough = now - self._looked >= LOOK_SECONDS
        if thorough:
            self._looked = now
        bound: list[Bound] = []
        fresh = set[str]()
        for ask in self.order.ranked(list(self.waiting), now)[:LOOK]:
            if not (thorough or self.holdings.idle):
                break
            _untarget(ask)
            lanes = self.eligible(ask)
            _refresh(lanes, fresh, now)
            question = self.question(ask, now)
            best, seen = cheapest(question, lanes)
            if best is None:
                continue
            ask.read = best.read
            if best.wait > 0 or best.slot < 0:
                ask.target = best.lane
                best.lane.reserve(now, best.ahead + best.read + best.write)
            else:
                bound.append(self._bind(ask, question, best, seen))
        return bound

    def choose(self, ask: Ask, now: float) -> Parts | None:
        """The engine that costs least, free or not; None where none can."""
        return self.weigh(ask, now)[0]

    def weigh(self, ask: Ask, now: float) -> tuple[Parts | None, Seen]:
        """The same, with what was found about every engine."""
        lanes = self.eligible(ask)
        _refresh(lanes, set(), now)
        return cheapest(self.question(ask, now), lanes)

    def question(self, ask: Ask, now: float) -> Question:
        """Find out once what the prices of all engines need."""
        hint = self.sessions.get(ask.session, -1) if ask.session else -1
        return asked(ask, self.workload(ask.model), self.holdings, now, hint)

    def _bind(self, ask: Ask, question: Question, best: Parts, seen: Seen) -> Bound:
        lane, now = best.lane, question.now
        place = lane.places[best.slot]
        del self.waiting[ask]
        # What a conversation was until now, in other slots, is of no more use.
        self.holdings.supersede(ask.prompt)
        job = Job(
            ask.prompt,
            best.slot,
            best.tokens,
            best.cached,
            question.answer,
            now,
            best.read / lane.scale,
            self._others(lane, best.slot, ask.slots),
            # With a host cache the hit may not be what the slot held.
            question.depth(1 << place) if lane.host is None else 0,
        )
        lane.start(job, now)
        self.order.charge(ask.client, best.read + best.write, now)
        if ask.session:
            self._remember(ask.session, place)
        return Bound(ask, lane, job, best, seen)

    def _others(self, lane: Lane, slot: int, slots: int) -> tuple[int, ...]:
        if slots == 1:
            return ()
        idle = [
            number
            for number, place in enumerate(lane.places)
            if number != slot and self.holdings.idle & (1 << place)
        ]
        return tuple(idle[: slots - 1])

    def _remember(self, session: str, place: int) -> None:
        self.sessions[session] = place
        self.sessions.move_to_end(session)
        if len(self.sessions) > SESSIONS:
            self.sessions.popitem(last=False)

    def began(self, bound: Bound, now: float, tokens: int, cached: int) -> None:
        """An engine begins a prompt, and says how long it is and how much it had."""
        self._count(bound, tokens, cached)
        bound.lane.began(bound.job, now, tokens, cached)

    def _count(self, bound: Bound, tokens: int, cached: int) -> None:
        """Learn how many tokens the prompt is, and its part that was cached."""
        blocks, job = bound.job.prompt.blocks, bound.job
        workload = self.workload(bound.ask.model)
        lengths = workload.lengths
        if blocks:
            prompt, ratio = bound.job.prompt, workload.tokens_per_byte
            lengths.learn_frame(prompt, ratio, tokens)
            lengths.learn(blocks[-1], tokens)
        if 0 < job.depth < len(blocks) and abs(cached - job.cached) < NEAR * job.cached:
            lengths.learn(blocks[job.depth - 1], cached)

    def ended(
        self, bound: Bound, now: float, timings: Timings, *, counted: bool = True
    ) -> None:
        """Learn from an answer that came to its end.

        `counted` says whether the engine told of its prompt when it began.
        """
        ask, lane, job = bound.ask, bound.lane, bound.job
        tokens = max(1, timings.cached + timings.prompt)
        if not counted:
            lane.counted(job, tokens, timings.cached)
        lane.end(job, now, timings.predicted)
        workload = self.workload(ask.model)
        workload.returns.answered(ask.prompt, now)
        if lane.learner.samples > ENOUGH and now - lane.learned < LEARN_SECONDS:
            return
        lane.learned = now
        if not counted:
            self._count(bound, tokens, timings.cached)
        lane.learner.learn(lane.sample(job, now, timings))
        workload.learn_prompt(timings.cached + timings.prompt, ask.prompt.size)
        workload.learn_answer(ask.prompt.head, ask.budget, timings.predicted)
        lane.stale = True


def _untarget(ask: Ask) -> None:
    if ask.target is not None:
        ask.target.release()
        ask.target = None


def _refresh(lanes: Sequence[Lane], fresh: set[str], now: float) -> None:
    for lane in lanes:
        if lane.name not in fresh:
            fresh.add(lane.name)
            lane.refresh(now)
