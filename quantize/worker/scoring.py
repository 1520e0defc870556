"""Scoring: perplexity and KL divergence of a model's predictions.

Log-probabilities are natural, one row per position. Those of the base are stored in a
folder, in 16 bits, over the 16 nats below each row's likeliest token: a position of
SmolLM2 takes 96 KiB. Variants are compared with them.

Only the second half of each chunk counts, as in llama-perplexity: there the model has
enough context.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeserve.models.comparison import Quality
from edgeserve.runtime.threads import threads_for
from quantize.worker.inference import CannotLoad, Model, loaded
from quantize.worker.messages import Emit, Score, Step

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Codes = NDArray[np.uint16]

RANGE = 16.0
"""Nats stored below the likeliest token; e^-16 is a ten-millionth."""

FEW = 10
"""With so few values a standard error has no meaning; it is reported as 0."""


def log_softmax(logits: Floats) -> Floats:
    """Turn rows of logits into rows of log-probabilities."""
    top = logits.max(axis=1, keepdims=True)
    total = np.exp(logits - top).sum(axis=1, dtype=np.float64, keepdims=True)
    return np.asarray(logits - (top + np.log(total)), np.float32)


@dataclass(frozen=True)
class Packed:
    """Rows of log-probabilities in 16 bits: `floor + scale * codes`."""

    codes: Codes
    scale: Floats
    floor: Floats

    def unpack(self) -> Floats:
        """Return the rows, rounded to 16 bits."""
        wide = self.codes.astype(np.float32)
        return np.asarray(self.floor[:, None] + self.scale[:, None] * wide, np.float32)


def pack(log_probs: Floats) -> Packed:
    """Store rows in 16 bits; values below the range become its floor."""
    top = log_probs.max(axis=1)
    floor = np.maximum(log_probs.min(axis=1), top - np.float32(RANGE))
    scale = np.maximum(top - floor, np.float32(1e-9)) / np.float32(65535)
    steps = (log_probs - floor[:, None]) / scale[:, None]
    codes = np.clip(np.rint(steps), 0, 65535).astype(np.uint16)
    return Packed(codes, scale, floor)


def kl_divergence(base: Floats, other: Floats) -> Doubles:
    """Return, row by row, the sum of p_base (ln p_base - ln p_other), in nats.

    Tokens less likely than e^-16 by the base do not count, as in llama-perplexity.
    """
    share = np.where(base > -RANGE, np.exp(base), np.float32(0))
    total = (share * (base - other)).sum(axis=1, dtype=np.float64)
    return np.asarray(total, np.float64)


def mean_and_error(values: Doubles) -> tuple[float, float]:
    """Return the mean and its standard error."""
    count = values.size
    mean = float(values.mean())
    variance = float((values * values).mean()) - mean * mean
    if count <= FEW or variance <= 0:
        return mean, 0.0
    return mean, float(np.sqrt(variance / (count - 1)))


def perplexity(losses: Doubles) -> tuple[float, float]:
    """Return exp of the mean negative log-likelihood, and its standard error."""
    mean, error = mean_and_error(losses)
    value = float(np.exp(mean))
    return value, value * error


def log_ratio(losses: Doubles, base: Doubles) -> tuple[float, float]:
    """Return ln(perplexity / base's); paired, so that variance of the text cancels."""
    return mean_and_error(losses - base)


def root_mean_square(losses: Doubles, base: Doubles) -> float:
    """Return the typical change of the true token's probability, 0 to 1."""
    change = np.exp(-losses) - np.exp(-base)
    return float(np.sqrt((change * change).mean()))


ROWS = 16
"""Positions processed at a time: 16 of 150,000 tokens are 10 MB as F32."""


def score(job: Score, emit: Emit) -> None:
    """Score one model; emit a step after each chunk, then the result."""
    text = Path(job.text).read_text(encoding="utf-8")
    threads = threads_for(job.threads)
    with loaded(job.model, context=job.context, threads=threads, repack=False) as model:
        chunks = _chunks(model, text, job)
        folder = Path(job.base)
        kind = _BaseScores.write if job.keep else _VariantScores.read
        scores = kind(folder, chunks, model.tokens)
        for done, chunk in enumerate(chunks, 1):
            for truth, log_probs in _predictions(model, chunk):
                scores.add(truth, log_probs)
            emit(Step(done, len(chunks)))
        emit(scores.quality())


def _chunks(model: Model, text: str, job: Score) -> NDArray[np.int32]:
    tokens = model.tokenize(text)
    count = len(tokens) // job.context
    if count < 1:
        raise CannotLoad(
            f"the text has {len(tokens)} tokens, fewer than one chunk of {job.context};"
            " give a longer --text or a smaller --context"
        )
    count = min(count, job.chunks) if job.chunks else count
    used = np.array(tokens[: count * job.context], np.int32)
    return used.reshape(count, job.context)


def _predictions(
    model: Model, chunk: NDArray[np.int32]
) -> Iterator[tuple[NDArray[np.int32], Floats]]:
    """Yield true tokens and log-probabilities, ROWS positions at a time."""
    tokens = [int(token) for token in chunk]
    first = model.first_token()
    if first is not None:
        tokens[0] = first
    half = len(tokens) // 2
    model.forget()
    model.decode(tokens, 0, half)
    logits = model.logits(len(tokens) - half)
    truths = chunk[half + 1 :]
    for start in range(0, len(truths), ROWS):
        truth = truths[start : start + ROWS]
        rows = np.array(logits[start : start + len(truth)])
        yield truth, log_softmax(rows)


@dataclass
class _BaseScores:
    """Writes the predictions of the base to the folder."""

    folder: Path
    chunks: NDArray[np.int32]
    width: int
    losses: list[Doubles] = field(default_factory=list[Doubles])
    rows: list[tuple[Floats, Floats]] = field(
        default_factory=list[tuple[Floats, Floats]]
    )

    @classmethod
    def write(cls, folder: Path, chunks: NDArray[np.int32], width: int) -> _BaseScores:
        (folder / "codes").unlink(missing_ok=True)
        return cls(folder, chunks, width)

    def add(self, truth: NDArray[np.int32], log_probs: Floats) -> None:
        packed = pack(log_probs)
        with (self.folder / "codes").open("ab") as file:
            file.write(packed.codes.tobytes())
        self.rows.append((packed.scale, packed.floor))
        self.losses.append(_losses(truth, log_probs))

    def quality(self) -> Quality:
        losses = np.concatenate(self.losses)
        np.savez(
            self.folder / "base.npz",
            chunks=self.chunks,
            width=self.width,
            losses=losses,
            scale=np.concatenate([scale for scale, _ in self.rows]),
            floor=np.concatenate([floor for _, floor in self.rows]),
        )
        return Quality(tokens=losses.size, perplexity=perplexity(losses))


@dataclass
class _VariantScores:
    """Compares predictions with those of the base."""

    codes: NDArray[np.uint16]
    scale: Floats
    floor: Floats
    base: Doubles
    losses: list[Doubles] = field(default_factory=list[Doubles])
    divergences: list[Doubles] = field(default_factory=list[Doubles])
    agreed: list[Doubles] = field(default_factory=list[Doubles])
    at: int = 0

    @classmethod
    def read(
        cls, folder: Path, chunks: NDArray[np.int32], width: int
    ) -> _VariantScores:
        with np.load(folder / "base.npz") as kept:
            same_width = int(kept["width"]) == width
            if not same_width or not np.array_equal(kept["chunks"], chunks):
                raise CannotLoad(
                    "it has other tokens: it is not a variant of the same model"
                )
            scale, floor, base = kept["scale"], kept["floor"], kept["losses"]
        shape = (base.size, width)
        codes = np.memmap(folder / "codes", np.uint16, "r", shape=shape)
        return cls(codes, scale, floor, base)

    def add(self, truth: NDArray[np.int32], log_probs: Floats) -> None:
        here = slice(self.at, self.at + truth.size)
        self.at += truth.size
        packed = Packed(np.array(self.codes[here]), self.scale[here], self.floor[here])
        base = packed.unpack()
        self.losses.append(_losses(truth, log_probs))
        self.divergences.append(kl_divergence(base, log_probs))
        same = base.argmax(axis=1) == log_probs.argmax(axis=1)
        self.agreed.append(same.astype(np.float64))

    def quality(self) -> Quality:
        losses = np.concatenate(self.losses)
        divergences = np.concatenate(self.divergences)
        return Quality(
            tokens=losses.size,
            perplexity=perplexity(losses),
            divergence=mean_and_error(divergences),
            log_ratio=log_ratio(losses, self.base),
            same_top=mean_and_error(np.concatenate(self.agreed)),
            rms=root_mean_square(losses, self.base),
        )


def _losses(truth: NDArray[np.int32], log_probs: Floats) -> Doubles:
    """Return the negative log-likelihood of each true token."""
    chosen = log_probs[np.arange(truth.size), truth]
    return np.asarray(-chosen, np.float64)
