"""Worker messages: jobs and events, one JSON document per line.

llama.cpp ends the process on an internal error, and its log is the only progress there
is: so the library lives in a child.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from edgeserve.models.comparison import Quality, Speeds


class Quantize(msgspec.Struct, frozen=True, kw_only=True, tag="quantize"):
    """Quantize a file. A `dry_run` writes nothing and tells every tensor's new type.

    `overrides` maps a regular expression over tensor names to a tensor type's number.
    `threads` 0 uses every core.
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
    """Read a text with a model and say how well it predicts.

    With `keep` the log-probabilities are written to the file `base`; otherwise they are
    compared with what `base` holds. `context` is tokens per chunk.
    """

    model: str
    text: str
    base: str
    keep: bool
    context: int
    chunks: int
    threads: int = 0


class Speed(msgspec.Struct, frozen=True, kw_only=True, tag="speed"):
    """Measure how fast a model reads `prompt` tokens and writes `answer` tokens.

    With `repack` the weights are laid out for this processor first, as an engine does.
    After `seconds`, what has been measured must do; one repeat always ends.
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
    """A tensor is being worked on."""

    index: int
    of: int
    tensor: str


class TensorEnded(msgspec.Struct, frozen=True, tag="ended"):
    """A tensor is done; `kind` is what it became."""

    tensor: str
    kind: str


class TensorMisfit(msgspec.Struct, frozen=True, tag="misfit"):
    """A tensor's rows do not divide into blocks of `asked`; it becomes `became`."""

    tensor: str
    asked: str
    became: str


class Step(msgspec.Struct, frozen=True, tag="step"):
    """`done` of `of` chunks or repeats are finished."""

    done: int
    of: int


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """It did not work; `why` is a sentence."""

    why: str


class Done(msgspec.Struct, frozen=True, tag="done"):
    """It worked."""


Event = (
    TensorBegun | TensorEnded | TensorMisfit | Step | Quality | Speeds | Failed | Done
)

Emit = Callable[[Event], None]
"""Sends an event to the parent process."""
