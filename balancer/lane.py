"""One engine as the balancer follows it: what runs there, and how far it must be. Pure.

Between two events every sequence is taken to advance at the rate that was learned;
progress, first tokens and ends put the picture right again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heapify, heapreplace
from math import exp

from balancer.holdings import Held, Holdings
from balancer.prefix import Prompt
from balancer.speed import Learner, Sample, Speed

LIKELY_LEFT = 0.35
"""An answer that is longer than expected probably has this part of it still to come."""

LOAD_SECONDS = 60.0
"""Over how long the share of busy slots is averaged."""


@dataclass(slots=True)
class Job:
    """One request at work in a slot."""

    prompt: Prompt
    slot: int
    tokens: float
    cached: float
    answer: float
    started: float
    reading: float
    """Seconds of prefill left, with the engine to itself."""
    first: float | None = None
    done: float = 0.0
    waited: float = 0.0
    stalled: float = 0.0
    crowd: float = 0.0
    decoded: float = 0.0
    seen_cached: int | None = None


@dataclass(slots=True)
class Lane:
    """One engine: its speed, its slots, its jobs.

    `scale` stretches every predicted second: throttling, battery, an owner at work.
    `pins` says whether a request may name its slot (`id_slot`), which it may where the
    slots have their own context and nobody else sends work here.
    """

    name: str
    model: str
    slots: int
    learner: Learner
    holdings: Holdings
    batch: int = 256
    context: int = 8192
    pins: bool = True
    scale: float = 1.0
    risk: float = 0.0
    open: bool = True
    jobs: dict[int, Job] = field(default_factory=dict[int, Job])
    places: list[int] = field(default_factory=list[int])
    mask: int = 0
    now: float = 0.0
    load: float = 0.0
    trust: float = 1.0
    """Tokens found cached over tokens predicted to be."""
    backlog: float = 0.0
    """Seconds of prefill that were begun and are not done, at `now`."""
    queued: int = 0
    frees: list[float] = field(default_factory=list[float])
    """A heap: when each slot comes free, reservations included."""

    def __post_init__(self) -> None:
        self.places = self.holdings.add(self.slots)
        self.mask = sum(1 << place for place in self.places)
        self.frees = [0.0] * self.slots

    @property
    def speed(self) -> Speed:
        """What is believed of its speed."""
        return self.learner.speed

    @property
    def idle(self) -> int:
        """Slots without work."""
        return self.slots - len(self.jobs)

    def advance(self, now: float) -> None:
        """Let time pass as the learned speed says."""
        seconds = now - self.now
        if seconds <= 0:
            return
        self.now = now
        fade = exp(-seconds / LOAD_SECONDS)
        self.load = self.load * fade + len(self.jobs) / self.slots * (1 - fade)
        if not self.jobs:
            return
        reader = self._reader()
        writing = sum(1 for job in self.jobs.values() if job.first is not None)
        rate = self._rate(writing, reader is not None)
        for job in self.jobs.values():
            if job.first is not None:
                job.done += seconds * rate
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
        """Work out anew when the slots come free."""
        per_token = self.speed.token_seconds(len(self.jobs)) * self.scale
        self.backlog = self.scale * sum(
            max(job.reading, 0.02) for job in self.jobs.values() if job.first is None
        )
        begin = self.now + self.backlog
        self.frees = [begin + self._left(job) * per_token for job in self.jobs.values()]
        self.frees.extend([0.0] * self.idle)
        heapify(self.frees)

    def _left(self, job: Job) -> float:
        return max(job.answer - job.done, LIKELY_LEFT * job.answer)

    def reserve(self, begin: float, seconds: float) -> None:
        """A waiting request counts on the next slot, from `begin` for so long."""
        heapreplace(self.frees, max(begin, self.frees[0]) + seconds)

    def start(self, job: Job, now: float) -> None:
        """A request was sent to a slot, which now holds its prompt and nothing else."""
        self.advance(now)
        self.jobs[job.slot] = job
        place = self.places[job.slot]
        self.holdings.idle &= ~(1 << place)
        self.holdings.put(place, Held(job.prompt, job.tokens, 0.0, now))
        self.foresee()

    def began(self, job: Job, now: float, tokens: int, cached: int) -> None:
        """The engine says how long the prompt is and how much of it it had."""
        self.advance(now)
        if job.cached >= 32:
            self.trust += 0.1 * (min(cached / job.cached, 1.0) - self.trust)
        job.tokens, job.cached, job.seen_cached = tokens, cached, cached
        job.reading = self.speed.prefill_seconds(tokens - cached, cached)
        job.waited = 0.0
        held = self.holdings.held[self.places[job.slot]]
        if held is not None:
            held.tokens = tokens
        self.foresee()

    def wrote(self, job: Job, now: float) -> None:
        """The first token came."""
        self.advance(now)
        job.first, job.reading = now, 0.0
        self.foresee()

    def end(self, job: Job, now: float, answer: int) -> None:
        """The slot is free, and holds the prompt with the answer."""
        self.advance(now)
        self.jobs.pop(job.slot, None)
        place = self.places[job.slot]
        self.holdings.idle |= 1 << place
        held = self.holdings.held[place]
        if held is not None:
            held.answer, held.since = float(answer), now
            held.tokens = job.tokens + answer
        self.foresee()

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

    def lose(self) -> None:
        """The engine started anew: its caches are empty."""
        for place in self.places:
            self.holdings.forget(place)
        self.trust = 1.0


@dataclass(frozen=True, slots=True)
class Timings:
    """llama.cpp's `timings`: tokens and milliseconds."""

    cached: int
    prompt: int
    prompt_ms: float
    predicted: int
    predicted_ms: float
