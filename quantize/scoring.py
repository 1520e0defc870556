"""Read a text with a model and score its predictions. Runs in the child process.

The second half of every chunk counts, as in llama-perplexity: there, the model has seen
enough to predict. The base's predictions go to a folder, for the variants to meet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantize import divergence
from quantize.divergence import Doubles, Floats, Packed
from quantize.inference import CannotLoad, Model, loaded
from quantize.jobs import Event, Quality, Score, Step
from quantize.threads import threads_for

ROWS = 16
"""Positions worked on at a time: 16 of 150,000 tokens are 10 MB as F32."""

Emit = Callable[[Event], None]


def score(job: Score, emit: Emit) -> None:
    """Score one model; tell every chunk, then the result."""
    text = Path(job.text).read_text(encoding="utf-8")
    threads = threads_for(job.threads)
    with loaded(job.model, context=job.context, threads=threads, repack=False) as model:
        chunks = _chunks(model, text, job)
        folder = Path(job.base)
        found = _Kept.write if job.keep else _Compared.read
        tally = found(folder, chunks, model.tokens)
        for done, chunk in enumerate(chunks, 1):
            for truth, log_probs in _predictions(model, chunk):
                tally.add(truth, log_probs)
            emit(Step(done, len(chunks)))
        emit(tally.quality())


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
    """Give true tokens and log-probabilities, some positions at a time."""
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
        yield truth, divergence.log_softmax(rows)


@dataclass
class _Kept:
    """Writes down what the base predicts."""

    folder: Path
    chunks: NDArray[np.int32]
    width: int
    losses: list[Doubles]
    rows: list[tuple[Floats, Floats]]

    @classmethod
    def write(cls, folder: Path, chunks: NDArray[np.int32], width: int) -> _Kept:
        (folder / "codes").unlink(missing_ok=True)
        return cls(folder, chunks, width, [], [])

    def add(self, truth: NDArray[np.int32], log_probs: Floats) -> None:
        packed = divergence.pack(log_probs)
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
        return Quality(tokens=losses.size, perplexity=divergence.perplexity(losses))


@dataclass
class _Compared:
    """Meets what the base predicted."""

    codes: NDArray[np.uint16]
    scale: Floats
    floor: Floats
    base: Doubles
    losses: list[Doubles]
    divergences: list[Doubles]
    agreed: list[Doubles]
    at: int = 0

    @classmethod
    def read(cls, folder: Path, chunks: NDArray[np.int32], width: int) -> _Compared:
        with np.load(folder / "base.npz") as kept:
            same_width = int(kept["width"]) == width
            if not same_width or not np.array_equal(kept["chunks"], chunks):
                raise CannotLoad("it has other tokens: not a variant of the same model")
            scale, floor, base = kept["scale"], kept["floor"], kept["losses"]
        shape = (base.size, width)
        codes = np.memmap(folder / "codes", np.uint16, "r", shape=shape)
        return cls(codes, scale, floor, base, [], [], [])

    def add(self, truth: NDArray[np.int32], log_probs: Floats) -> None:
        here = slice(self.at, self.at + truth.size)
        self.at += truth.size
        packed = Packed(np.array(self.codes[here]), self.scale[here], self.floor[here])
        base = packed.unpack()
        self.losses.append(_losses(truth, log_probs))
        self.divergences.append(divergence.kl_divergence(base, log_probs))
        same = base.argmax(axis=1) == log_probs.argmax(axis=1)
        self.agreed.append(same.astype(np.float64))

    def quality(self) -> Quality:
        losses = np.concatenate(self.losses)
        divergences = np.concatenate(self.divergences)
        return Quality(
            tokens=losses.size,
            perplexity=divergence.perplexity(losses),
            divergence=divergence.mean_and_error(divergences),
            log_ratio=divergence.log_ratio(losses, self.base),
            same_top=divergence.mean_and_error(np.concatenate(self.agreed)),
            rms=divergence.root_mean_square(losses, self.base),
        )


def _losses(truth: NDArray[np.int32], log_probs: Floats) -> Doubles:
    """Return the negative log-likelihood of each true token."""
    chosen = log_probs[np.arange(truth.size), truth]
    return np.asarray(-chosen, np.float64)
