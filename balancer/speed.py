"""How fast an engine is, learned from what it measured of itself. Pure.

Two straight lines describe an engine. Prefill: seconds per token over the context it
attends to. Decode: seconds per token over the number of other sequences in the batch.
Both are least squares over decaying sums, which weigh a sample by its tokens; that is
what makes them ratios of sums and not means of rates, so that a short answer with a
clumsy clock cannot move them far.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import log, sqrt

import msgspec

HALF_LIFE = 20.0
"""Samples after which an old sample counts half."""

SMALLEST_PREFILL = 32
"""Tokens below which a prefill says more about overhead than about speed."""

SMALLEST_DECODE = 4

OUTLIER = 4.0
"""A sample further than this factor from what is believed is pulled in to it."""

SURPRISE = 0.4
"""|ln(seen/believed)| that, three times in a row, means that the machine changed."""

IN_A_ROW = 3

LEAST, MOST = 1e-7, 1e4
"""Seconds a token that no machine undercuts or exceeds; clocks that stood still do."""

CALIBRATION_PROMPT = 128
CALIBRATION_ANSWER = 16
"""Tokens of the probe that a joining engine gets before any user does."""


@dataclass(frozen=True, slots=True)
class Speed:
    """What is believed of an engine. Seconds and tokens.

    Reading m tokens behind c cached ones takes `prefill·m + attention·m·(c + m/2)`.
    One of k sequences gets a token each `decode·(1 + slowdown·(k - 1))`.
    """

    prefill: float
    attention: float
    decode: float
    slowdown: float
    overhead: float = 0.005

    def prefill_seconds(self, tokens: float, cached: float) -> float:
        """Time to read `tokens` behind `cached` ones, with the engine to itself."""
        return tokens * (self.prefill + self.attention * (cached + tokens / 2))

    def token_seconds(self, sequences: int) -> float:
        """Time between two tokens of one sequence when `sequences` are decoding."""
        return self.decode * (1 + self.slowdown * max(0, sequences - 1))


class Line(msgspec.Struct):
    """y = base + slope·x from decaying weighted sums; what it began with fades last."""

    base: float
    slope: float
    weight: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0
    streak: int = 0
    eager: int = 0

    def at(self, x: float) -> float:
        """What the line says."""
        return self.base + self.slope * x

    def learn(self, x: float, y: float, weight: float, known_slope: float) -> None:
        """Take in one sample of `weight` tokens; `known_slope` is what is typical.

        The typical slope, relative to the base, counts as much as a little evidence:
        samples that all lie at one x say nothing about a slope.
        """
        believed = self.at(x)
        y = min(max(y, LEAST), MOST)
        if self.weight:
            y = min(max(y, believed / OUTLIER), believed * OUTLIER)
            self._notice(log(y / believed))
        fade = 0.5 ** (1.0 / HALF_LIFE)
        if self.eager:
            self.eager -= 1
            fade **= 4
        self.weight = self.weight * fade + weight
        self.x = self.x * fade + weight * x
        self.y = self.y * fade + weight * y
        self.xx = self.xx * fade + weight * x * x
        self.xy = self.xy * fade + weight * x * y
        self._fit(known_slope)

    def forget(self) -> None:
        """What it says stays, until the next sample says otherwise."""
        self.weight = self.x = self.y = self.xx = self.xy = 0.0
        self.streak = self.eager = 0

    def _notice(self, surprise: float) -> None:
        """A laptop unplugged or a Pi throttled: forget faster for a while."""
        if abs(surprise) < SURPRISE or self.streak * surprise < 0:
            self.streak = 0
        if abs(surprise) >= SURPRISE:
            self.streak += 1 if surprise > 0 else -1
        if abs(self.streak) >= IN_A_ROW:
            self.streak, self.eager = 0, 10
            for name in ("weight", "x", "y", "xx", "xy"):
                setattr(self, name, getattr(self, name) / 16)

    def _fit(self, known_slope: float) -> None:
        mean_x, mean_y = self.x / self.weight, self.y / self.weight
        spread = max(0.0, self.xx / self.weight - mean_x * mean_x)
        shared = self.xy / self.weight - mean_x * mean_y
        expected = mean_y * known_slope / (1 + known_slope * mean_x)
        # The prior is worth the evidence of samples that differ by a quarter of mean x.
        ridge = (0.25 * mean_x + 1e-9) ** 2
        slope = (shared + ridge * expected) / (spread + ridge)
        self.slope = min(max(slope, 0.0), 0.9 * mean_y / mean_x if mean_x else expected)
        self.base = mean_y - self.slope * mean_x


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer's `timings`, and what else its engine was doing. Milliseconds.

    `waited` is prefill time that went to other prompts; `stalled` is decode time during
    which other prompts were read; `sequences` is the mean number decoding.
    """

    cached: int
    prompt: int
    prompt_ms: float
    predicted: int
    predicted_ms: float
    waited_ms: float = 0.0
    stalled_ms: float = 0.0
    sequences: float = 1.0


@dataclass(slots=True)
class Learner:
    """The speed of one engine as evidence comes in."""

    guess: Speed
    reading: Line = field(init=False)
    writing: Line = field(init=False)
    samples: int = 0
    speed: Speed = field(init=False)

    def __post_init__(self) -> None:
        self.reading = Line(self.guess.prefill, self.guess.attention)
        self.writing = Line(self.guess.decode, self.guess.decode * self.guess.slowdown)
        self.speed = self.guess

    @property
    def calibrated(self) -> bool:
        """Whether anything was measured yet."""
        return self.samples > 0

    def begin(self, sample: Sample) -> None:
        """Take in what one probe measured, in place of all that came before."""
        for line in (self.reading, self.writing):
            line.forget()
        self.learn(sample)

    def learn(self, sample: Sample) -> None:
        """Take in what one answer measured."""
        reads = sample.prompt >= SMALLEST_PREFILL and sample.prompt_ms > 0
        writes = sample.predicted > SMALLEST_DECODE and sample.predicted_ms > 0
        if reads:
            believed = self.reading.base
            self._learn_reading(sample)
            if not self.writing.weight:
                # What reads slower than it was thought to does not write as thought.
                self._rescale_writing(self.reading.base / believed)
        if writes:
            self._learn_writing(sample)
        self.samples += reads or writes
        self._settle()

    def _rescale_writing(self, slower: float) -> None:
        factor = sqrt(slower)
        self.writing.base *= factor
        self.writing.slope *= factor

    def _learn_reading(self, sample: Sample) -> None:
        own = max(sample.prompt_ms - sample.waited_ms, 0.1 * sample.prompt_ms)
        # Time that other prompts took is an estimate: such a sample is worth less.
        trust = max(0.1, own / sample.prompt_ms) ** 2
        self.reading.learn(
            sample.cached + sample.prompt / 2,
            own / 1000 / sample.prompt,
            min(sample.prompt, 2048) * trust,
            self.guess.attention / self.guess.prefill,
        )

    def _learn_writing(self, sample: Sample) -> None:
        own = max(sample.predicted_ms - sample.stalled_ms, 0.1 * sample.predicted_ms)
        trust = max(0.1, own / sample.predicted_ms) ** 2
        # The first token comes with the prefill; what is timed are the ones after it.
        self.writing.learn(
            max(0.0, sample.sequences - 1),
            own / 1000 / (sample.predicted - 1),
            min(sample.predicted, 512) * trust,
            self.guess.slowdown,
        )

    def _settle(self) -> None:
        self.speed = Speed(
            self.reading.base,
            self.reading.slope,
            self.writing.base,
            self.writing.slope / self.writing.base,
            self.guess.overhead,
        )

    def dump(self) -> Learned:
        """What is worth keeping over a restart."""
        return Learned(self.reading, self.writing, self.samples)

    def load(self, learned: Learned) -> None:
        """Go on from what was kept."""
        self.reading, self.writing = learned.reading, learned.writing
        self.samples = learned.samples
        self._settle()


class Learned(msgspec.Struct):
    """A learner's evidence, as it is stored."""

    reading: Line
    writing: Line
    samples: int


class Book:
    """Learned speeds by what they belong to; outlives engines and restarts."""

    def __init__(self, learned: Mapping[str, Learned] | None = None) -> None:
        self._learned = dict(learned or {})
        self._learners: dict[str, Learner] = {}

    def learner(self, key: Key, guess: Speed) -> Learner:
        """The learner of an engine; it begins with what was learned before, if any."""
        name = key.name
        if name not in self._learners:
            learner = Learner(guess)
            if name in self._learned:
                learner.load(self._learned[name])
            self._learners[name] = learner
        return self._learners[name]

    def dump(self) -> bytes:
        """Everything learned, as JSON."""
        now = {n: each.dump() for n, each in self._learners.items() if each.samples}
        return msgspec.json.encode({**self._learned, **now})

    @classmethod
    def load(cls, body: bytes) -> Book:
        """Read what `dump` wrote; anything else is an empty book, to be filled anew."""
        try:
            return cls(msgspec.json.decode(body, type=dict[str, Learned]))
        except msgspec.DecodeError:
            return cls()


class Key(msgspec.Struct, frozen=True, order=True):
    """What a learned speed belongs to; when one of these changes it is learned anew."""

    node: str
    build: str
    variant: str
    launch: str

    @property
    def name(self) -> str:
        """The same as one word."""
        return " ".join((self.node, self.build, self.variant, self.launch))
