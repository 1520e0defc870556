"""Running requests: the load of one engine, kept in totals. Pure.

What happens is summed for all requests at once; each remembers the totals at its start.
So an event costs the same with one request as with a hundred; only the rare end of a
batch is told to each.

llama.cpp reads prompts in batches that it fills in the order of the slots, and it ends
a batch that it has begun. So a prompt waits for the batch that runs, for the prompts in
the slots below, and for what fills up the batch in which it ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heapify
from math import inf

import msgspec

from balancer.dialects.prompt import Prompt
from balancer.dialects.timings import Timings
from balancer.prediction.speed import Sample

LIKELY_LEFT = 0.35
"""The part of the expected length that a longer answer probably still has to come."""

OVERDUE = 0.5
"""What is far too late is so for as long again, times this: the later, the longer. So a
request does not wait for ever for an engine that hangs while another is idle."""

FAR = 3.0
"""So many times the expected length, or so many seconds for a prompt, are far."""


@dataclass(slots=True)
class EngineTotals:
    """What has happened on an engine since it was first seen.

    `tokens` counts the tokens that each running answer got, `crowd` the seconds of all
    answers together, `reading` the seconds in which a prompt was read, `ends` the
    requests that have ended.
    """

    tokens: float = 0.0
    crowd: float = 0.0
    reading: float = 0.0
    ends: int = 0


class RunningRequest(msgspec.Struct, eq=False):
    """One running request. Seconds and tokens; `reading` is prefill still to be done.

    `slot` is its expected slot; `others` are the further slots of a request that takes
    several. `depth` is how many of its blocks the slot held. `own` is how long its own
    prompt was read, `waited` how long another prompt was. `client`: the sender.

    `began` is when its engine said that the prompt begins, `processed` how many of its
    tokens are read or cached, `beside` how many tokens of other prompts were read in
    its batches. `readers` and `writers` are the requests that it met at its start,
    `served` how many answers were written at its first token, its own included, and
    `ends` how many requests ended between the two. `outside`: its engine tells no
    times. `queued`: its server let it wait. `foreign`: others' requests beside it.

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
    client: str = ""
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
    began: float | None = None
    processed: float = 0.0
    beside: float = 0.0
    readers: int = 0
    writers: int = 0
    served: int = 0
    ends: int = 0
    outside: bool = False
    queued: bool = False
    foreign: int = 0

    def left(self, tokens: float) -> float:
        """Tokens of its answer to come, given its engine's total."""
        done = 0.0 if self.first is None else tokens - self.tokens_at_first
        overdue = OVERDUE * (done - FAR * self.answer)
        return max(self.answer - done, LIKELY_LEFT * self.answer, overdue)

    def wrote(self, now: float, totals: EngineTotals) -> None:
        """Note its first token."""
        self.waited = totals.reading - self.reading_at_start - self.own
        self.first, self.reading = now, 0.0
        self.tokens_at_first, self.crowd_at_first = totals.tokens, totals.crowd
        self.reading_at_first = totals.reading

    def sample(self, now: float, timings: Timings, scale: float) -> Sample:
        """Return what its answer says about the speed, less what others cost it."""
        writing = max(now - (self.first or now), 1e-6)
        if self.outside:
            return self._from_outside(timings, writing, scale)
        waited_ms = 1000 * self.waited
        if self.began is not None:  # then its engine has reported each batch
            share = self.beside / (self.beside + max(timings.prompt, 1))
            waited_ms = share * timings.prompt_ms
        return Sample(
            cached=timings.cached,
            prompt=timings.prompt,
            prompt_ms=timings.prompt_ms / scale,
            predicted=timings.predicted,
            predicted_ms=timings.predicted_ms / scale,
            waited_ms=waited_ms / scale,
            stalled_ms=self.stalled * 1000 / scale,
            sequences=max(1.0, self.crowd / writing),
        )

    def _from_outside(self, timings: Timings, writing: float, scale: float) -> Sample:
        """Return it where only the times of tokens are known, not those of the engine.

        What a server does with other prompts meanwhile slows its answers, and is no
        time in which they stand still.
        """
        reading = (self.first or self.started) - self.started
        return Sample(
            cached=timings.cached,
            prompt=0 if self.queued else timings.prompt,
            prompt_ms=1000 * reading / scale,
            predicted=timings.predicted,
            predicted_ms=1000 * writing / scale,
            waited_ms=1000 * self.waited / scale,
            sequences=max(1.0, self.crowd / writing) + self.foreign,
            outside=True,
        )

    def settle(self, totals: EngineTotals) -> None:
        """Work out what happened to it."""
        if self.first is None:
            self.waited = totals.reading - self.reading_at_start - self.own
            return
        self.done = totals.tokens - self.tokens_at_first
        self.crowd = totals.crowd - self.crowd_at_first
        self.stalled = totals.reading - self.reading_at_first


BARELY = 0.02
"""Seconds that a prefill takes at least until its first token is seen."""


@dataclass(slots=True, eq=False)
class RunningRequests:
    """The requests of one engine by slot; `reading` are those without a token yet.

    `slots` is how many slots they hold. `reader` is the one whose prompt is being read;
    its present batch began at `batch_at`.
    """

    requests: dict[int, RunningRequest] = field(
        default_factory=dict[int, RunningRequest]
    )
    reading: dict[int, RunningRequest] = field(
        default_factory=dict[int, RunningRequest]
    )
    reader: RunningRequest | None = None
    batch_at: float = -inf
    slots: int = 0
    totals: EngineTotals = field(default_factory=EngineTotals)

    @property
    def writing(self) -> int:
        """How many answers are being written."""
        return len(self.requests) - len(self.reading)

    def passes(self, seconds: float, step: float, scale: float) -> None:
        """Let time pass. `step`: seconds between two tokens of each answer."""
        reader, totals = self.reader, self.totals
        if writing := len(self.requests) - len(self.reading):
            totals.tokens += seconds / step
            totals.crowd += seconds * writing
        if reader is not None:
            totals.reading += seconds
            reader.own += seconds
            reader.reading -= seconds / scale

    def start(self, request: RunningRequest) -> None:
        """Add a request."""
        request.readers, request.writers = len(self.reading), self.writing
        self.requests[request.slot] = self.reading[request.slot] = request
        self.slots += 1 + len(request.others)
        request.reading_at_start = self.totals.reading
        request.ends = -self.totals.ends
        if self.reader is None:
            self.batch_at = request.started
        if self.reader is None or request.slot < self.reader.slot:
            # Slots fill the batch in their order.
            self.reader = request

    def begins(self, request: RunningRequest, now: float) -> None:
        """Note that its prompt begins only now; its wait until then does not count."""
        request.reading_at_start, request.own = self.totals.reading, 0.0
        request.began, request.processed = now, request.cached
        self.batch_at = now

    def batched(
        self, request: RunningRequest, now: float, processed: float, per_token: float
    ) -> None:
        """Note the end of a batch, in which other prompts may have been read as well.

        Their own reports of it may come a little earlier or later than this one; half
        the least time of the batch tells it from the ones before and after.
        """
        read, request.processed = processed - request.processed, processed
        self.batch_at = now
        if read <= 0 or len(self.requests) == 1:
            return
        since = now - 0.5 * read * per_token
        for other in self.requests.values():
            if other is request or other.began is None or other.began > since:
                continue
            if other.first is None or other.first > since:
                other.beside += read

    def wrote(self, request: RunningRequest, now: float) -> None:
        """Note its first token."""
        request.wrote(now, self.totals)
        self._read(request)
        request.served = len(self.requests) - len(self.reading)
        request.ends += self.totals.ends

    def end(self, request: RunningRequest) -> None:
        """Remove it; work out what happened to it."""
        request.settle(self.totals)
        self.totals.ends += 1
        del self.requests[request.slot]
        self.slots -= 1 + len(request.others)
        self._read(request)

    def _read(self, request: RunningRequest) -> None:
        """Note that its prompt is read, or will not be."""
        reading = self.reading
        if reading.pop(request.slot, None) is not None and request is self.reader:
            self.reader = reading[min(reading)] if reading else None

    def frees(
        self, slots: int, foreign: int, step: float, now: float, read_until: float
    ) -> tuple[list[float], int]:
        """When each of so many slots comes free, as a heap; the number of the first.

        Of `foreign` requests only the number is known. `step`: seconds per token.
        """
        tokens, frees = self.totals.tokens, list[float]()
        soonest, first = inf, -1
        for slot, request in self.requests.items():
            end = read_until + request.left(tokens) * step
            frees.extend([end] * (1 + len(request.others)))
            if end < soonest:
                soonest, first = end, slot
        frees.extend([now + 100 * step] * foreign)
        if len(frees) < slots:
            frees.extend([0.0] * (slots - len(frees)))
        elif len(frees) > slots:  # a server's own queue: the first ends free no slot
            frees = sorted(frees)[len(frees) - slots :]
        heapify(frees)
        return frees, first

    def unread(self, slot: int) -> float:
        """Seconds of prefill still to be done in the slots below `slot`."""
        left = 0.0
        for other, request in self.reading.items():
            if other < slot:
                # No `max` here: a call costs as much as the rest of the line.
                own = request.reading
                late = -OVERDUE * (own + FAR)
                left += own if own > BARELY else late if late > BARELY else BARELY
        return left


def delay(below: float, every: float, own: float, left: float, batch: float) -> float:
    """Seconds that other prompts delay one that takes `own` seconds.

    `below` and `every`: to read those in the slots below, and all of them. `left` and
    `batch`: of the batch that runs, and of a full one. Branches instead of `min`,
    because this is called for every engine that is weighed.
    """
    running = every if left > every else left if left > 0.0 else 0.0
    below = below - running if below > running else 0.0
    above = every - running - below
    if above <= 0.0:
        return running + below
    room = -(below + own) % batch
    return running + below + (above if above < room else room)
