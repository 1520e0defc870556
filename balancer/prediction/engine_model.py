"""Engine model: what runs on one engine, and when a slot comes free. Pure.

Between two events every sequence is taken to advance at the rate that was learned;
progress, first tokens and ends put the picture right again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heapify, heapreplace
from math import inf

from balancer.dialects.timings import Timings
from balancer.prediction.learning import SpeedLearner
from balancer.prediction.prefix_cache import CachedPrefix, HostCache, PrefixCacheIndex
from balancer.prediction.running import RunningRequest, RunningRequests
from balancer.prediction.speed import Sample, Speed
from balancer.prediction.weights import WEIGHTS, Weights

SURE_TOKENS = 32
"""A predicted hit below this says nothing about how well hits are predicted."""


@dataclass(slots=True, eq=False)
class EngineModel:
    """One engine: its speed, its slots, its jobs.

    `scale` stretches every predicted second: throttling, battery, an owner at work.
    `pins` says whether a request may name its slot (`id_slot`), which it may where each
    slot has its own context and there is no host cache. `foreign` counts slots that
    other balancers' requests hold.

    Events come far more often than decisions: so the future is worked out only when
    somebody asks, and then once.
    """

    name: str
    model: str
    slots: int
    learner: SpeedLearner
    holdings: PrefixCacheIndex
    batch: int = 256
    context: int = 8192
    pins: bool = True
    host: HostCache | None = None
    scale: float = 1.0
    risk: float = 0.0
    foreign: int = 0
    queued: int = 0
    traffic: RunningRequests = field(default_factory=RunningRequests)
    places: list[int] = field(default_factory=list[int])
    numbers: dict[int, int] = field(default_factory=dict[int, int])
    """Slots by their places among the fleet's."""
    resting: dict[int, None] = field(default_factory=dict[int, None])
    """Places of the slots that no job has, the longest idle first."""
    mask: int = 0
    now: float = 0.0
    learned: float = -inf
    """When something was last learned of its speed."""
    trust: float = 1.0
    """Tokens found cached over tokens predicted to be."""
    free_at: float = 0.0
    """When the next slot comes free, reservations included."""
    read_until: float = 0.0
    """When the prompts that are there will all have been read."""
    next_slot: int = -1
    """Where all are busy: the slot that will come free first."""
    stale: bool = True
    """What was foreseen no longer holds: reservations, or a change in speed or load."""
    weights: Weights = WEIGHTS
    per_read: float = 0.0
    per_context: float = 0.0
    """Seconds to read a token, and what each token before it adds."""
    few_start: float = 0.0
    per_few: float = 0.0
    """What they add where only a few are read: once, and each for each before it."""
    per_token: float = 0.0
    """Seconds between two tokens of an answer if one more joins."""
    read_price: float = 1.0
    token_price: float = 0.0
    """What a second of reading, and a token of an answer, cost all in all."""
    gone: bool = False
    """It left the fleet; its slots may be another engine's by now."""
    _moved: bool = False
    """Something happened at `now` that was not looked at yet."""
    _frees: list[float] = field(default_factory=list[float])
    """A heap: when each slot comes free; empty until somebody asks."""
    _base_price: float = 1.0

    def __post_init__(self) -> None:
        self.places = self.holdings.add(self.slots)
        self.numbers = {place: slot for slot, place in enumerate(self.places)}
        self.resting = dict.fromkeys(self.places)
        self.mask = sum(1 << place for place in self.places)
        self._foresee()

    @property
    def speed(self) -> Speed:
        """What is believed of its speed."""
        return self.learner.speed

    @property
    def taken(self) -> int:
        """Slots at work, whoever sent it."""
        return min(self.slots, self.traffic.slots + self.foreign)

    @property
    def jobs(self) -> dict[int, RunningRequest]:
        """What runs there, by slot."""
        return self.traffic.jobs

    def idle_slots(self) -> list[int]:
        """The numbers of the slots that are not at work."""
        return [
            number
            for number, place in enumerate(self.places)
            if self.holdings.idle & (1 << place)
        ]

    def advance(self, now: float) -> None:
        """Let time pass as the learned speed says."""
        seconds = now - self.now
        if seconds > 0:
            self.now = now
            self.traffic.passes(seconds, self._step(), self.scale)

    def _step(self) -> float:
        """Seconds from one token of each answer to the next."""
        speed, traffic = self.learner.speed, self.traffic
        step = speed.token_seconds(traffic.writing)
        if traffic.reader is not None:
            step = max(step, self.batch * speed.prefill)
        return step * self.scale

    def refresh(self, now: float) -> None:
        """Look again at the future where something has changed, or comes late."""
        if self.stale:
            self.advance(now)
            self._foresee()
        elif self._moved:
            self._foresee()
        if self.free_at <= now and self.taken == self.slots:
            self.advance(now)
            self._foresee()

    def _foresee(self) -> None:
        """Work out when prompts will be read and slots come free, as of `self.now`."""
        self.stale = self._moved = False
        self.read_until = self.now + self.ahead(self.slots)
        self._frees.clear()
        taken = self.taken
        if taken < self.slots:
            self.free_at, self.next_slot = 0.0, -1
        else:
            self._foresee_ends()
        self._price(min(taken, self.slots - 1))

    def _foresee_ends(self) -> None:
        per_token = self.learner.speed.token_seconds(self.taken) * self.scale
        tokens, soonest = self.traffic.sums.tokens, inf
        frees = [0.0] * (self.slots - self.taken)
        for slot, job in self.traffic.jobs.items():
            end = self.read_until + job.left(tokens) * per_token
            frees.append(end)
            for _ in job.others:
                frees.append(end)
            if end < soonest:
                soonest, self.next_slot = end, slot
        # Of others' requests nothing is known but that they are there.
        unknown = self.slots - len(frees)
        frees.extend([self.now + 100 * per_token] * unknown)
        heapify(frees)
        self._frees, self.free_at = frees, frees[0]

    def _price(self, running: int) -> None:
        """Work out what does not depend on the request."""
        speed, scale = self.learner.speed, self.scale
        self.per_read = speed.prefill * scale
        self.per_context = speed.attention * scale
        self.few_start, self.per_few = speed.few_start * scale, speed.few * scale
        self.per_token = speed.token_seconds(running + 1) * scale
        self._base_price = 1 + self.weights.others * running + self.risk
        self._price_queue()

    def _price_queue(self) -> None:
        share = self.weights.queue * self.queued / self.slots
        self.read_price = self._base_price + share
        self.token_price = (self.weights.write + share) * self.per_token

    def free(self, slots: int) -> float:
        """When so many slots will be free at once; ask after `refresh`."""
        if slots <= self.slots - self.taken and not self._frees:
            return 0.0
        if not self._frees:
            self._foresee_ends()
        return sorted(self._frees)[slots - 1]

    def ahead(self, slot: int) -> float:
        """Seconds of prefill that come before that of a slot: in the slots below it."""
        return self.traffic.unread(slot) * self.scale

    def reserve(self, now: float, seconds: float) -> None:
        """A waiting request counts on the slot that comes free next."""
        if not self._frees:
            self._foresee_ends()
        heapreplace(self._frees, max(now, self._frees[0]) + seconds)
        self.free_at = self._frees[0]
        self.queued += 1
        self.stale = True
        self._price_queue()

    def release(self) -> None:
        """A request waits for it no longer."""
        self.queued -= 1
        self._price_queue()

    def start(self, job: RunningRequest, now: float) -> None:
        """A request was sent to a slot, which now holds its prompt and nothing else."""
        self.advance(now)
        self.traffic.start(job)
        place = self.places[job.slot]
        for each in (place, *[self.places[other] for other in job.others]):
            self.holdings.occupy(each)
            self.resting.pop(each, None)
        if self.host is not None:
            self.host.swap(place, job.prompt, job.tokens)
        self.holdings.put(place, CachedPrefix(job.prompt, job.tokens, 0.0, now, now))
        self._moved = True

    def began(self, job: RunningRequest, now: float, tokens: int, cached: int) -> None:
        """The engine begins a prompt, and says how long it is and how much it had."""
        self.advance(now)
        self.counted(job, tokens, cached)
        self.traffic.begins(job)
        job.reading = self.speed.prefill_seconds(tokens - cached, cached)
        self._moved = True

    def counted(self, job: RunningRequest, tokens: int, cached: int) -> None:
        """The engine says how long a prompt is, or was, and how much of it it had."""
        if job.cached >= SURE_TOKENS:
            self.trust += 0.1 * (min(cached / job.cached, 1.0) - self.trust)
        job.tokens, job.cached = tokens, cached
        held = self.holdings.held[self.places[job.slot]]
        if held is not None:
            held.tokens = tokens

    def progressed(self, job: RunningRequest, now: float, processed: int) -> None:
        """The engine says how many prompt tokens it has, cached ones included."""
        self.advance(now)
        left = max(0.0, job.tokens - processed)
        job.reading = self.speed.prefill_seconds(left, processed)
        self._moved = True

    def wrote(self, job: RunningRequest, now: float) -> None:
        """The first token came."""
        self.advance(now)
        self.traffic.wrote(job, now)
        self._moved = True

    def end(self, job: RunningRequest, now: float, answer: float | None = None) -> None:
        """The slots are free; the first holds the prompt with the answer.

        `answer` is its length in tokens, None where only the clock knows it.
        """
        self.advance(now)
        self._free(job)
        # The last token was chosen, but not read back into the cache.
        answer = max(0.0, (job.done if answer is None else answer) - 1)
        held = self.holdings.held[self.places[job.slot]]
        if held is not None:
            held.answer, held.since, held.used = answer, now, now
            held.tokens = job.tokens + answer
        self._moved = True

    def drop(self, job: RunningRequest, now: float) -> None:
        """The request was given up, or its engine failed."""
        if job.first is not None:
            self.end(job, now)
            return
        # How far the prompt was read is not known: do not count on any of it.
        self.advance(now)
        self._free(job)
        self.holdings.forget(self.places[job.slot])
        self._moved = True

    def _free(self, job: RunningRequest) -> None:
        self.traffic.end(job)
        for slot in (job.slot, *job.others):
            place = self.places[slot]
            self.holdings.release(place)
            self.resting[place] = None

    def sample(self, job: RunningRequest, now: float, timings: Timings) -> Sample:
        """What the answer says of the engine's speed, less what others cost it."""
        writing = max(now - (job.first or now), 1e-6)
        return Sample(
            cached=timings.cached,
            prompt=timings.prompt,
            prompt_ms=timings.prompt_ms / self.scale,
            predicted=timings.predicted,
            predicted_ms=timings.predicted_ms / self.scale,
            waited_ms=job.waited * 1000 / self.scale,
            stalled_ms=job.stalled * 1000 / self.scale,
            sequences=max(1.0, job.crowd / writing),
        )

    def lost(self) -> None:
        """The engine started anew: its caches are empty."""
        for place in self.places:
            self.holdings.forget(place)
        if self.host is not None:
            self.host.clear()
        self.trust = 1.0

    def left(self) -> None:
        """The engine is gone for good."""
        self.lost()
        self.holdings.remove(self.places)
        self.gone = True
