"""How much is asked of the machine: the real thing, or a rehearsal on any laptop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeserve.models.synthetic import Kind, Shape, a_model


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Streams and tokens of each part. `layers` are what a sweep sets."""

    streams: int = 32
    prompt: int = 512
    answer: int = 128
    context: int = 1024
    turns: int = 3
    threads: int = 12
    few: int = 8
    cpu_prompt: int = 64
    cpu_answer: int = 64
    layers: tuple[str, ...] = ("0", "8", "16", "24", "all", "auto")
    tune_seconds: int = 200


FULL = Scale()
REHEARSAL = Scale(
    streams=3, prompt=24, answer=6, context=256, turns=1, threads=2, few=2,
    cpu_prompt=16, cpu_answer=4, layers=("0", "auto"), tune_seconds=1,
)  # fmt: skip

LLAMA_7B = Shape(
    layers=32, embedding=4096, feed_forward=11008, heads=32, kv_heads=32,
    vocabulary=32000, context=4096, tied=False,
)  # fmt: skip
LLAMA_13B = Shape(
    layers=40, embedding=5120, feed_forward=13824, heads=40, kv_heads=40,
    vocabulary=32000, context=4096, tied=False,
)  # fmt: skip
SMALL = Shape(
    layers=2, embedding=256, feed_forward=512, heads=4, kv_heads=4, vocabulary=32000,
    context=4096, tied=False,
)  # fmt: skip


@dataclass(frozen=True)
class Models:
    """Files to measure: two of the smaller shape, one of the larger."""

    small: Path
    small_q8: Path
    large: Path


def models(folder: Path, *, rehearsal: bool) -> Models:
    """Return the files in `folder`, made by `make`; a rehearsal makes its own."""
    if not rehearsal:
        return Models(
            folder / "Llama-7B.Q4_K_M.gguf",
            folder / "Llama-7B.Q8_0.gguf",
            folder / "Llama-13B.Q4_K_M.gguf",
        )
    small, small_q8 = folder / "Rehearsal.Q4_0.gguf", folder / "Rehearsal.Q8_0.gguf"
    for file, kind in ((small, Kind.Q4_0), (small_q8, Kind.Q8_0)):
        if not file.exists():
            a_model(file, SMALL, kind=kind)
    return Models(small, small_q8, small)


def make(found: Models) -> None:
    """Write the files, with random weights."""
    for path, shape, kind in (
        (found.small, LLAMA_7B, Kind.Q4_K),
        (found.small_q8, LLAMA_7B, Kind.Q8_0),
        (found.large, LLAMA_13B, Kind.Q4_K),
    ):
        a_model(path, shape, kind=kind, name=path.name.partition(".")[0])
