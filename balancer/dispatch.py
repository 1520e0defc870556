"""EdgeServe's mind: lanes, a waiting room, and who goes where now. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from balancer.holdings import Holdings
from balancer.lane import Job, Lane, Timings
from balancer.order import Order, Waiter
from balancer.predict import Parts, Question, Weights, parts
from balancer.prefix import Prompt
from balancer.workload import Workload

LOOK = 24
"""How many of the waiting are asked for their wishes when something changes."""


@dataclass(slots=True, eq=False)
class Ask:
    """A request that wants an engine."""

    id: int
    model: str
    prompt: Prompt
    client: str
    arrived: float
    budget: int | None = None
    deadline: float | None = None
    avoid: frozenset[str] = frozenset()
    tokens: float | None = None
    answer: float | None = None
    read: float = 0.0
    target: Lane | None = None


@dataclass(frozen=True, slots=True)
class Bound:
    """A request that starts on an engine now."""

    ask: Ask
    job: Job
    parts: Parts


@dataclass(slots=True)
class Dispatch:
    """The whole state of the decision."""

    weights: Weights = field(default_factory=Weights)
    holdings: Holdings = field(default_factory=Holdings)
    lanes: dict[str, Lane] = field(default_factory=dict[str, Lane])
    waiting: list[Ask] = field(default_factory=list[Ask])
    order: Order = field(default_factory=Order)
    workloads: dict[str, Workload] = field(default_factory=dict[str, Workload])

    def workload(self, model: str) -> Workload:
        """What is known of a model's requests."""
        return self.workloads.setdefault(model, Workload())

    def question(self, ask: Ask, now: float) -> Question:
        """Find out once what all engines' prices need."""
        workload, held = self.workload(ask.model), self.holdings.held
        levels = self.holdings.levels(ask.prompt)
        ratio = workload.tokens_per_byte
        if levels:
            _, mask = levels[0]
            known = held[(mask & -mask).bit_length() - 1]
            if known is not None:
                ratio = known.tokens_per_byte
        tokens = ask.tokens or max(2.0, ask.prompt.size * ratio)
        answer = ask.answer or workload.answer_tokens(ask.prompt.head, ask.budget)
        return Question(
            ask.prompt, levels, tokens, answer, now, workload, held,
            self.holdings.idle, self.weights, ask.target,
        )  # fmt: skip

    def choose(self, ask: Ask, now: float) -> Parts | None:
        """The engine that costs least, free or not; None where none can."""
        question = self.question(ask, now)
        best: Parts | None = None
        for lane in self.able(ask):
            each = parts(question, lane)
            if best is None or each.cost < best.cost:
                best = each
        if best is not None:
            ask.read = best.read
        return best

    def able(self, ask: Ask) -> Iterable[Lane]:
        """Engines that can serve it at all."""
        for lane in self.lanes.values():
            if lane.open and lane.model == ask.model and lane.name not in ask.avoid:
                yield lane

    def offer(self, ask: Ask, now: float) -> None:
        """Take a request in."""
        self.workload(ask.model).returns.asked(ask.prompt, now)
        self.waiting.append(ask)

    def assign(self, now: float) -> list[Bound]:
        """Start whatever should start now."""
        if not self.waiting or not self.holdings.idle:
            return []
        for lane in self.lanes.values():
            lane.advance(now)
            lane.foresee()
        self.waiting.sort(key=lambda ask: self._key(ask, now))
        bound: list[Bound] = []
        for ask in self.waiting[:LOOK]:
            best = self.choose(ask, now)
            if best is None:
                continue
            lane = best.lane
            if ask.target is not None:
                ask.target.queued -= 1
            ask.target = None
            if best.wait > 0 or best.slot < 0:
                ask.target = lane
                lane.queued += 1
                lane.reserve(now, best.ahead + best.read + best.write)
                continue
            bound.append(Bound(ask, self._start(ask, best, now), best))
            if not self.holdings.idle:
                break
        gone = {each.ask.id for each in bound}
        self.waiting = [ask for ask in self.waiting if ask.id not in gone]
        return bound

    def _key(self, ask: Ask, now: float) -> float:
        return self.order.key(Waiter(ask.client, ask.arrived, ask.read), now)

    def _start(self, ask: Ask, best: Parts, now: float) -> Job:
        lane = best.lane
        workload = self.workload(ask.model)
        self._supersede(ask.prompt)
        answer = ask.answer or workload.answer_tokens(ask.prompt.head, ask.budget)
        reading = lane.speed.prefill_seconds(
            max(1.0, best.tokens - best.cached), best.cached
        )
        job = Job(ask.prompt, best.slot, best.tokens, best.cached, answer, now, reading)
        lane.start(job, now)
        return job

    def _supersede(self, prompt: Prompt) -> None:
        """Elsewhere, what this conversation was until now is of no more use."""
        for depth, mask in self.holdings.levels(prompt):
            left = mask & self.holdings.idle
            while left:
                held = self.holdings.held[(left & -left).bit_length() - 1]
                left &= left - 1
                if held is not None and depth == len(held.prompt.blocks):
                    held.since = -1e9

    def ended(
        self, ask: Ask, lane: Lane, job: Job, now: float, timings: Timings
    ) -> None:
        """Learn from an answer."""
        lane.end(job, now, timings.predicted)
        lane.learner.learn(lane.sample(job, now, timings))
        workload = self.workload(ask.model)
        workload.learn_prompt(timings.cached + timings.prompt, ask.prompt.size)
        workload.returns.answered(ask.prompt, now)
        workload.learn_answer(ask.prompt.head, ask.budget, timings.predicted)
        lane.foresee()
