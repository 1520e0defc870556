"""One engine as the balancer follows it: what runs there, and how far it must be. Pure.

Between two events every sequence is taken to advance at the rate that was learned;
progress, first tokens and ends put the picture right again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heapify, heapreplace

from balancer.holdings import Held, Holdings
from balancer.hostcache import HostCache
from balancer.job import Job as Job
from balancer.job import Timings as Timings
from balancer.speed import Learner, Sample, Speed
from balancer.weights import WEIGHTS, Weights

LIKELY_LEFT = 0.35
"""An answer that is longer than expected probably has this part of it still to come."""

SURE_TOKENS = 32
"""A predicted hit below this says nothing about how well hits are predicted."""

BARELY = 0.02
"""Seconds that a prefill takes at least until its first token is seen."""


@dataclass(slots=True, eq=False)
class Lane:
    """One engine: its speed, its slots, its jobs.

    `scale` stretches every predicted second: throttling, battery, an owner at work.
    `pins` says whether a request may name its slot (`id_slot`), which it may where each
    slot has its own context and there is no host cache. `foreign` counts slots that
    other balancers' requests hold.
    """

    name: str
    model: str
    slots: int
    learner: Learner
    holdings: Holdings
    batch: int = 256
    context: int = 8192
    pins: bool = True
    host: HostCache | None = None
    scale: float = 1.0
    risk: float = 0.0
    foreign: int = 0
    queued: int = 0
    jobs: dict[int, Job] = field(default_factory=dict[int, Job])
    places: list[int] = field(default_factory=list[int])
    mask: int = 0
    now: float = 0.0
    trust: float = 1.0
    """Tokens found cached over tokens predicted to be."""
    read_until: float = 0.0
    """When the prompts that are there will all have been read."""
    frees: list[float] = field(default_factory=list[float])
    """A heap: when each slot comes free, reservations included."""
    next_slot: int = -1
    """Where all are busy: the slot that will come free first."""
    stale: bool = False
    """What was foreseen no longer holds: reservations, or a change in speed or load."""
    ours: int = 0
    """Slots that its jobs hold."""
    weights: Weights = WEIGHTS
    per_read: float = 0.0
    per_context: float = 0.0
    """Seconds to read a token, and what each token before it adds."""
    per_token: float = 0.0
    """Seconds between two tokens of an answer if one more joins."""
    read_price: float = 1.0
    token_price: float = 0.0
    """What a second of reading, and a token of an answer, cost all in all."""

    def __post_init__(self) -> None:
        self.places = self.holdings.add(self.slots, self.name)
        self.mask = sum(1 << place for place in self.places)
        self.foresee()

    @property
    def speed(self) -> Speed:
        """What is believed of its speed."""
        return self.learner.speed

    @property
    def taken(self) -> int:
        """Slots at work, whoever sent it."""
        return min(self.slots, self.ours + self.foreign)

    def advance(self, now: float) -> None:
        """Let time pass as the learned speed says."""
        seconds = now - self.now
        if seconds <= 0:
            return
        self.now = now
        reader = self._reader()
        writing = sum(1 for job in self.jobs.values() if job.first is not None)
        tokens = seconds * self._rate(writing, reader is not None)
        for job in self.jobs.values():
            if job.first is not None:
                job.done += tokens
                job.crowd += seconds * writing
                job.stalled += seconds if reader is not None else 0.0
            elif job is reader:
                job.reading -= seconds / self.scale
            else:
                job.waited += seconds

    def _reader(self) -> Job | None:
        """Slots fill the batch in their order."""
        reading = [slot for slot, job in self.jobs.items() if job.first is None]
        return self.jobs[min(reading)] if reading else None

    def _rate(self, writing: int, reading: bool) -> float:
        rate = 1 / self.speed.token_seconds(writing)
        if reading:
            rate = min(rate, 1 / (self.batch * self.speed.prefill))
        return rate / self.scale

    def foresee(self) -> None:
        """Work out anew when prompts will be read and slots come free."""
        reading = [job.reading for job in self.jobs.values() if job.first is None]
        left = self.scale * sum(max(seconds, BARELY) for seconds in reading)
        self.read_until = self.now + left
        per_token = self.speed.token_seconds(self.taken) * self.scale
        ends = {
            slot: self.read_until + _left(job) * per_token
            for slot, job in self.jobs.items()
        }
        self.next_slot = min(ends, key=ends.__getitem__) if ends else -1
        self.frees = [0.0] * (self.slots - self.taken)
        for slot, job in self.jobs.items():
            self.frees.extend([ends[slot]] * (1 + len(job.others)))
        # Of others' requests nothing is known but that they are there.
        unknown = self.slots - len(self.frees)
        self.frees.extend([self.now + 100 * per_token] * unknown)
        heapify(self.frees)
        self.stale = False
        self._price()

    def _price(self) -> None:
        """Work out what does not depend on the request."""
        speed, weights = self.speed, self.weights
        running = min(self.taken, self.slots - 1)
        share = weights.queue * self.queued / self.slots
        self.per_read = speed.prefill * self.scale
        self.per_context = speed.attention * self.scale
        self.per_token = speed.token_seconds(running + 1) * self.scale
        self.read_price = 1 + share + weights.others * running + self.risk
        self.token_price = (weights.write + share) * self.per_token

    def refresh(self, now: float) -> None:
        """Look again where reservations, changes or lateness have made it necessary."""
        if self.stale or (self.frees[0] <= now and self.taken == self.slots):
            self.advance(now)
            self.foresee()

    def ahead(self, slot: int) -> float:
        """Seconds of prefill that come before that of a slot: in the slots below it."""
        return self.scale * sum(
            max(job.reading, BARELY)
            for other, job in self.jobs.items()
            if job.first is None and other < slot
        )

    def reserve(self, now: float, seconds: float) -> None:
        """A waiting request counts on the slot that comes free next."""
        heapreplace(self.frees, max(now, self.frees[0]) + seconds)
        self.queued += 1
        self.stale = True
        self._price()

    def release(self) -> None:
        """A request waits for it no longer."""
        self.queued -= 1
        self._price()

    def start(self, job: Job, now: float) -> None:
        """A request was sent to a slot, which now holds its prompt and nothing else."""
        self.advance(now)
        self.jobs[job.slot] = job
        self.ours += 1 + len(job.others)
        for slot in job.others:
            self.holdings.idle &= ~(1 << self.places[slot])
        place = self.places[job.slot]
        self.holdings.idle &= ~(1 << place)
        if self.host is not None:
            self.host.swap(place, job.prompt, job.tokens)
        self.holdings.put(place, Held(job.prompt, job.tokens, 0.0, now, now))
        self.foresee()

    def began(self, job: Job, now: float, tokens: int, cached: int) -> None:
        """The engine says how long the prompt is and how much of it it had."""
        self.advance(now)
        if job.cached >= SURE_TOKENS:
            self.trust += 0.1 * (min(cached / job.cached, 1.0) - self.trust)
        job.tokens, job.cached, job.waited = tokens, cached, 0.0
        job.reading = self.speed.prefill_seconds(tokens - cached, cached)
        held = self.holdings.held[self.places[job.slot]]
        if held is not None:
            held.tokens = tokens
        self.foresee()

    def progressed(self, job: Job, now: float, processed: int) -> None:
        """The engine says how many prompt tokens it has, cached ones included."""
        self.advance(now)
        left = max(0.0, job.tokens - processed)
        job.reading = self.speed.prefill_seconds(left, processed)
        self.foresee()

    def wrote(self, job: Job, now: float) -> None:
        """The first token came."""
        self.advance(now)
        job.first, job.reading = now, 0.0
        self.foresee()

    def end(self, job: Job, now: float, answer: float) -> None:
        """The slots are free; the first holds the prompt with the answer."""
        self.advance(now)
        self._free(job)
        held = self.holdings.held[self.places[job.slot]]
        if held is not None:
            held.answer, held.since, held.used = answer, now, now
            held.tokens = job.tokens + answer
        self.foresee()

    def drop(self, job: Job, now: float) -> None:
        """The request was given up, or its engine failed."""
        if job.first is None:
            # How far the prompt was read is not known: do not count on any of it.
            self.advance(now)
            self._free(job)
            self.holdings.forget(self.places[job.slot])
            self.foresee()
        else:
            self.end(job, now, job.done)

    def _free(self, job: Job) -> None:
        if self.jobs.pop(job.slot, None) is not None:
            self.ours -= 1 + len(job.others)
        for slot in (job.slot, *job.others):
            self.holdings.idle |= 1 << self.places[slot]

    def sample(self, job: Job, now: float, timings: Timings) -> Sample:
        """What the answer says of the engine's speed, less what others cost it."""
        writing = max(now - (job.first or now), 1e-6)
        return Sample(
            timings.cached,
            timings.prompt,
            timings.prompt_ms / self.scale,
            timings.predicted,
            timings.predicted_ms / self.scale,
            job.waited * 1000 / self.scale,
            job.stalled * 1000 / self.scale,
            max(1.0, job.crowd / writing),
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


def _left(job: Job) -> float:
    return max(job.answer - job.done, LIKELY_LEFT * job.answer)
