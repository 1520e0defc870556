"""Running requests: the load of one engine, kept in sums. Pure.

What happens is summed for all jobs at once; each remembers where the sums stood when it
began. So an event costs the same with one job as with a hundred.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from balancer.dialects.prompt import Prompt

LIKELY_LEFT = 0.35
"""An answer that is longer than expected probably has this part of it still to come."""


@dataclass(slots=True)
class EngineTotals:
    """What has happened on an engine since it was first seen.

    `tokens` is what each answer under way has got, `crowd` the seconds of all answers
    together, `reading` the seconds in which some prompt was read.
    """

    tokens: float = 0.0
    crowd: float = 0.0
    reading: float = 0.0


@dataclass(slots=True, eq=False)
class RunningRequest:
    """One request at work. Seconds and tokens; `reading` is prefill still to be done.

    `slot` is where we believe it is; `others` are the further slots of a request that
    takes several. `depth` is how many blocks of it the slot held. `own` is how long its
    prompt was the one that was read, `waited` how long another was.

    `reading_at_start` is its engine's `EngineTotals.reading` when it began; the three
    `…_at_first` are its engine's totals at its first token. From then on `waited`
    holds; `done`, `crowd` and `stalled` do once it is settled.
    """

    prompt: Prompt
    slot: int
    tokens: float
    cached: float
    answer: float
    started: float
    reading: float
    others: tuple[int, ...] = ()
    depth: int = 0
    first: float | None = None
    own: float = 0.0
    reading_at_start: float = 0.0
    tokens_at_first: float = 0.0
    crowd_at_first: float = 0.0
    reading_at_first: float = 0.0
    done: float = 0.0
    waited: float = 0.0
    stalled: float = 0.0
    crowd: float = 0.0

    def left(self, tokens: float) -> float:
        """Tokens of its answer to come, by its engine's sum of them."""
        done = 0.0 if self.first is None else tokens - self.tokens_at_first
        return max(self.answer - done, LIKELY_LEFT * self.answer)

    def wrote(self, now: float, sums: EngineTotals) -> None:
        """Its first token came."""
        self.waited = sums.reading - self.reading_at_start - self.own
        self.first, self.reading = now, 0.0
        self.tokens_at_first, self.crowd_at_first = sums.tokens, sums.crowd
        self.reading_at_first = sums.reading

    def settle(self, sums: EngineTotals) -> None:
        """Reckon up what happened to it."""
        if self.first is None:
            self.waited = sums.reading - self.reading_at_start - self.own
            return
        self.done = sums.tokens - self.tokens_at_first
        self.crowd = sums.crowd - self.crowd_at_first
        self.stalled = sums.reading - self.reading_at_first


BARELY = 0.02
"""Seconds that a prefill takes at least until its first token is seen."""


@dataclass(slots=True, eq=False)
class RunningRequests:
    """The jobs of one engine by their slots; `reading` are those without a token yet.

    `slots` is how many slots they hold. `reader` is whose prompt is being read.
    """

    jobs: dict[int, RunningRequest] = field(default_factory=dict[int, RunningRequest])
    reading: dict[int, RunningRequest] = field(
        default_factory=dict[int, RunningRequest]
    )
    reader: RunningRequest | None = None
    slots: int = 0
    sums: EngineTotals = field(default_factory=EngineTotals)

    @property
    def writing(self) -> int:
        """How many answers are under way."""
        return len(self.jobs) - len(self.reading)

    def passes(self, seconds: float, step: float, scale: float) -> None:
        """Let time pass. `step`: seconds from one token of each answer to the next."""
        reader, sums = self.reader, self.sums
        if writing := len(self.jobs) - len(self.reading):
            sums.tokens += seconds / step
            sums.crowd += seconds * writing
        if reader is not None:
            sums.reading += seconds
            reader.own += seconds
            reader.reading -= seconds / scale

    def start(self, job: RunningRequest) -> None:
        """One more."""
        self.jobs[job.slot] = self.reading[job.slot] = job
        self.slots += 1 + len(job.others)
        job.reading_at_start = self.sums.reading
        if self.reader is None or job.slot < self.reader.slot:
            # Slots fill the batch in their order.
            self.reader = job

    def begins(self, job: RunningRequest) -> None:
        """Its prompt is begun only now: what it waited until then is forgotten."""
        job.reading_at_start, job.own = self.sums.reading, 0.0

    def wrote(self, job: RunningRequest, now: float) -> None:
        """Its first token came."""
        job.wrote(now, self.sums)
        self._read(job)

    def end(self, job: RunningRequest) -> None:
        """It is over; reckon up what happened to it."""
        job.settle(self.sums)
        del self.jobs[job.slot]
        self.slots -= 1 + len(job.others)
        self._read(job)

    def _read(self, job: RunningRequest) -> None:
        """Its prompt is read, or will not be."""
        reading = self.reading
        if reading.pop(job.slot, None) is not None and job is self.reader:
            self.reader = reading[min(reading)] if reading else None

    def alone(self, job: RunningRequest) -> bool:
        """Whether a job has had the engine to itself."""
        job.settle(self.sums)
        return len(self.jobs) == 1 and job.waited < BARELY

    def unread(self, slot: int) -> float:
        """Seconds of prefill still to be done in the slots below `slot`."""
        left = 0.0
        for other, job in self.reading.items():
            if other < slot:
                # No `max` here: a call costs as much as the rest of the line.
                left += job.reading if job.reading > BARELY else BARELY
        return left
