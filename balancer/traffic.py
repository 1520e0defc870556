"""What is under way on one engine. Pure.

What happens is summed for all jobs at once; each remembers where the sums stood when it
began. So an event costs the same with one job as with a hundred.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from balancer.job import Job, Sums

BARELY = 0.02
"""Seconds that a prefill takes at least until its first token is seen."""


@dataclass(slots=True, eq=False)
class Traffic:
    """The jobs of one engine by their slots; `reading` are those without a token yet.

    `slots` is how many slots they hold. `reader` is whose prompt is being read.
    """

    jobs: dict[int, Job] = field(default_factory=dict[int, Job])
    reading: dict[int, Job] = field(default_factory=dict[int, Job])
    reader: Job | None = None
    slots: int = 0
    sums: Sums = field(default_factory=Sums)

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

    def start(self, job: Job) -> None:
        """One more."""
        self.jobs[job.slot] = self.reading[job.slot] = job
        self.slots += 1 + len(job.others)
        job.turn = self.sums.reading
        if self.reader is None or job.slot < self.reader.slot:
            # Slots fill the batch in their order.
            self.reader = job

    def begins(self, job: Job) -> None:
        """Its prompt is begun only now: what it waited until then is forgotten."""
        job.turn, job.own = self.sums.reading, 0.0

    def wrote(self, job: Job, now: float) -> None:
        """Its first token came."""
        job.wrote(now, self.sums)
        self._read(job)

    def end(self, job: Job) -> None:
        """It is over; reckon up what happened to it."""
        job.settle(self.sums)
        del self.jobs[job.slot]
        self.slots -= 1 + len(job.others)
        self._read(job)

    def _read(self, job: Job) -> None:
        """Its prompt is read, or will not be."""
        reading = self.reading
        if reading.pop(job.slot, None) is not None and job is self.reader:
            self.reader = reading[min(reading)] if reading else None

    def alone(self, job: Job) -> bool:
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
