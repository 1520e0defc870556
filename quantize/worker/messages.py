"""Worker messages: jobs and events, one JSON document per line.

The library runs in a child process because llama.cpp aborts on an internal error.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from edgeserve.models.comparison import Quality, Speeds


class Quantize(msgspec.Struct, frozen=True, kw_only=True, tag="quantize"):
    """Job: quantize a file. A `dry_run` writes nothing and reports each tensor's type.

    `overrides` are pairs: a regular expression over tensor names, and the number of a
    tensor type. `threads` 0 uses every core.
    """

    source: str
    target: str
    ftype: int
    dry_run: bool = False
    allow_requantize: bool = False
    threads: int = 0
    imatrix: str | None = None
    overrides: tuple[tuple[str, int], ...] = ()


class Score(msgspec.Struct, frozen=True, kw_only=True, tag="score"):
    """Job: measure how well a model predicts a text.

    With `keep` the log-probabilities are written to the folder `base`; otherwise they
    are compared with those in `base`. `context` is tokens per chunk.
    """

    model: str
    text: str
    base: str
    keep: bool
    context: int
    chunks: int
    threads: int = 0


class Speed(msgspec.Struct, frozen=True, kw_only=True, tag="speed"):
    """Job: measure how fast a model reads `prompt` tokens and writes `answer` tokens.

    With `repack` the weights are repacked for this processor first, as in an engine.
    No repeat starts after `seconds`, but at least one is completed.
    """

    model: str
    prompt: int
    answer: int
    repeats: int
    threads: int = 0
    repack: bool = True
    seconds: float = 20.0


Job = Quantize | Score | Speed


class TensorBegun(msgspec.Struct, frozen=True, tag="begun"):
    """Work on a tensor begins."""

    index: int
    of: int
    tensor: str


class TensorEnded(msgspec.Struct, frozen=True, tag="ended"):
    """A tensor is done; `kind` is its new type."""

    tensor: str
    kind: str


class TensorMisfit(msgspec.Struct, frozen=True, tag="misfit"):
    """A tensor's rows do not divide into blocks of `asked`; it gets type `became`."""

    tensor: str
    asked: str
    became: str


class Step(msgspec.Struct, frozen=True, tag="step"):
    """`done` of `of` chunks or repeats are finished."""

    done: int
    of: int


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The job failed; `why` is a sentence."""

    why: str


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The job succeeded."""


Event = (
    TensorBegun | TensorEnded | TensorMisfit | Step | Quality | Speeds | Failed | Done
)

Emit = Callable[[Event], None]
"""Sends an event to the parent process."""
