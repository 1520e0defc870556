"""Speed learning: the speed of each engine, from its own measurements. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from math import sqrt

import msgspec

from balancer.fleet.engines import EngineCandidate
from balancer.prediction.regression import (
    LEAST,
    OUTLIER,
    DecayingExtra,
    DecayingLine,
    FirstTokenLine,
)
from balancer.prediction.speed import (
    FEW,
    SMALLEST_DECODE,
    SMALLEST_PREFILL,
    Sample,
    Speed,
)
from edgeserve.wire import Launch

START = 0.05
"""Seconds that a prompt of a few tokens may take longer than expected."""


CONTEXT = 16384
"""Tokens before a token that double the time to read it, on a typical engine."""

MOST_START = 0.02
"""Seconds of a first token that are not read speed, as long as nothing tells more."""


class LearnedSpeed(msgspec.Struct, omit_defaults=True):
    """What a learner has measured, as it is stored."""

    reading: DecayingLine
    writing: DecayingLine
    samples: int
    few: DecayingExtra = msgspec.field(default_factory=DecayingExtra)
    first: FirstTokenLine | None = None


@dataclass(slots=True)
class SpeedLearner:
    """Learns the speed of one engine, sample by sample."""

    guess: Speed
    reading: DecayingLine = field(init=False)
    writing: DecayingLine = field(init=False)
    samples: int = 0
    speed: Speed = field(init=False)
    few: DecayingExtra = field(default_factory=DecayingExtra)
    contention: float = 1.0
    """The share of the time of other prompts by which one comes later."""
    first: FirstTokenLine | None = None
    """First-token seconds over tokens, where an engine tells no times."""

    def __post_init__(self) -> None:
        self.reading = DecayingLine(self.guess.prefill, self.guess.attention)
        self.writing = DecayingLine(
            self.guess.decode, self.guess.decode * self.guess.slowdown
        )
        self.speed = self.guess

    @property
    def calibrated(self) -> bool:
        """Whether anything was measured."""
        return self.samples > 0

    def begin(self, sample: Sample) -> None:
        """Learn from a probe, and forget all earlier samples."""
        for line in (self.reading, self.writing):
            line.forget()
        self.learn(sample)

    def learn(self, sample: Sample) -> None:
        """Learn from one answer."""
        if sample.outside:
            self._learn_outside(sample)
            return
        if 0 < sample.prompt < FEW and sample.read_alone and self.reading.weight:
            self._learn_few(sample)
        reads = sample.prompt >= SMALLEST_PREFILL and sample.prompt_ms > 0
        writes = sample.predicted > SMALLEST_DECODE and sample.predicted_ms > 0
        if reads:
            expected = self.reading.base
            self._learn_reading(sample)
            if not self.writing.weight:
                # An engine that reads slower than expected also writes slower.
                self._rescale_writing(self.reading.base / expected)
        if writes:
            self._learn_writing(sample)
        self.samples += reads or writes
        self._settle()

    def _learn_outside(self, sample: Sample) -> None:
        reads = sample.prompt > 0 and sample.prompt_ms > 0
        writes = sample.predicted > SMALLEST_DECODE and sample.predicted_ms > 0
        if reads:
            self._learn_first(sample)
        if writes:
            self._learn_writing(sample)
        self.samples += reads
        self._settle()

    def _learn_first(self, sample: Sample) -> None:
        """Learn overhead and reading together from a first token's time.

        Where all prompts are equally long, most of it is taken for reading, but for
        prompts that are too short to take long.
        """
        total, waited = sample.prompt_ms / 1000, sample.waited_ms / 1000
        beside = max(0, round(sample.sequences) - 1)
        total = max(total - self.speed.half_step(beside), total / 2)
        tokens = sample.prompt * (1 + (sample.cached + sample.prompt / 2) / CONTEXT)
        if self.first is None:
            self.first = FirstTokenLine(self.guess.overhead, self.reading.base)
        own = max(total - self.first.share * waited, 0.1 * total)
        start = min(MOST_START, own / 2)
        if sample.prompt < SMALLEST_PREFILL:
            start = max(start, own - tokens * self.reading.base)
        self.first.learn_first(tokens, waited, total, (own - start) / tokens)
        self._take_first(self.first)

    def _take_first(self, first: FirstTokenLine) -> None:
        self.guess = msgspec.structs.replace(self.guess, overhead=max(0.0, first.base))
        self.contention = first.share
        self.reading.base = max(first.slope, LEAST)
        self.reading.slope = self.reading.base / CONTEXT

    def _rescale_writing(self, slower: float) -> None:
        factor = sqrt(slower)
        self.writing.base *= factor
        self.writing.slope *= factor

    def _learn_reading(self, sample: Sample) -> None:
        own = max(sample.prompt_ms - sample.waited_ms, 0.1 * sample.prompt_ms)
        # The time of other prompts is an estimate: such a sample counts less.
        trust = max(0.1, own / sample.prompt_ms) ** 2
        before = sample.cached + sample.prompt / 2
        each = own / 1000 / sample.prompt
        if sample.prompt < FEW:
            more = self.few.at(sample.prompt * before) / sample.prompt
            each = max(each - more, each / OUTLIER)
        self.reading.learn(
            before,
            each,
            min(sample.prompt, 2048) * trust,
            self.guess.attention / self.guess.prefill,
        )

    def _learn_few(self, sample: Sample) -> None:
        """Learn what a short prefill takes beyond its share of a long one.

        In a batch with other prompts it would not have been read by that method.
        """
        own = max(sample.prompt_ms - sample.waited_ms, 0.1 * sample.prompt_ms) / 1000
        before = sample.cached + sample.prompt / 2
        share = sample.prompt * self.reading.at(before)
        most = OUTLIER * (share + self.few.at(sample.prompt * before)) + START
        self.few.learn(sample.prompt * before, min(own, most) - share)

    def _learn_writing(self, sample: Sample) -> None:
        own = max(sample.predicted_ms - sample.stalled_ms, 0.1 * sample.predicted_ms)
        trust = max(0.1, own / sample.predicted_ms) ** 2
        # The first token comes with the prefill; the time is that of the later ones.
        self.writing.learn(
            max(0.0, sample.sequences - 1),
            own / 1000 / (sample.predicted - 1),
            min(sample.predicted, 512) * trust,
            self.guess.slowdown,
        )

    def _settle(self) -> None:
        self.speed = Speed(
            prefill=self.reading.base,
            attention=self.reading.slope,
            decode=self.writing.base,
            slowdown=self.writing.slope / self.writing.base,
            overhead=self.guess.overhead,
            few_start=self.few.base,
            few=self.few.slope,
        )

    def dump(self) -> LearnedSpeed:
        """Return what to keep over a restart."""
        return LearnedSpeed(
            self.reading, self.writing, self.samples, self.few, self.first
        )

    def load(self, learned: LearnedSpeed) -> None:
        """Continue from what was kept."""
        self.reading, self.writing = learned.reading, learned.writing
        self.few = learned.few
        self.samples = learned.samples
        if learned.first is not None:
            self.first = learned.first
            self._take_first(learned.first)
        self._settle()


class SpeedStore:
    """Learned speeds by key; they outlive engines and restarts."""

    def __init__(self, learned: Mapping[str, LearnedSpeed] | None = None) -> None:
        self._learned = dict(learned or {})
        self._learners: dict[str, SpeedLearner] = {}

    def learner(self, key: SpeedKey, guess: Speed) -> SpeedLearner:
        """Return the learner of an engine, with what was learned before."""
        name = key.name
        if name not in self._learners:
            learner = SpeedLearner(guess)
            if name in self._learned:
                learner.load(self._learned[name])
            self._learners[name] = learner
        return self._learners[name]

    def dump(self) -> bytes:
        """Return everything learned, as JSON."""
        now = {n: each.dump() for n, each in self._learners.items() if each.samples}
        return msgspec.json.encode({**self._learned, **now})

    def load(self, body: bytes) -> None:
        """Continue from what `dump` wrote; anything else is ignored.

        Call it before the first engine joins.
        """
        try:
            self._learned = msgspec.json.decode(body, type=dict[str, LearnedSpeed])
        except msgspec.DecodeError:
            return


class SpeedKey(msgspec.Struct, frozen=True, order=True):
    """What a learned speed belongs to; a change of any field starts anew."""

    node: str
    build: str
    variant: str
    launch: str

    @property
    def name(self) -> str:
        """The fields as one string."""
        return " ".join((self.node, self.build, self.variant, self.launch))


def speed_key(each: EngineCandidate) -> SpeedKey:
    """Return what a learned speed belongs to."""
    engine = each.engine
    node = each.identity or each.node_id
    return SpeedKey(node, engine.build, engine.variant, _digest(engine.launch))


def _digest(launch: Launch) -> str:
    return blake2b(msgspec.json.encode(launch), digest_size=6).hexdigest()
