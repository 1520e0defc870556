"""Benchmark picture: throughput and first-token times against streams."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgeserve.cli.bench.figures import Figures
from edgeserve.errors import CommandError

Value = Callable[[Figures], float]

AXES: tuple[tuple[str, Value], ...] = (
    ("tokens/s written, all streams", lambda each: each.written_per_second),
    ("first token, p50 and p95, s", lambda each: each.first_p50),
    ("time per token, p50, ms", lambda each: 1000 * each.token_p50),
)


class NoPicture(CommandError):
    """matplotlib is not installed, or the file's type is unknown to it."""


def picture(all_: Sequence[Figures], path: Path) -> None:
    """Draw a picture of the type that the file's name ends with. Raises NoPicture."""
    try:
        importlib.import_module("matplotlib").use("Agg")
        pyplot = importlib.import_module("matplotlib.pyplot")
    except ImportError as error:
        raise NoPicture(
            "a picture needs matplotlib: `pip install matplotlib`"
        ) from error
    figure, axes = pyplot.subplots(1, len(AXES), figsize=(4.2 * len(AXES), 3.8))
    for axis, (label, value) in zip(axes, AXES, strict=True):
        _draw(axis, all_, label, value)
    axes[0].legend()
    figure.tight_layout()
    try:
        figure.savefig(path, dpi=120)
    except ValueError as error:
        raise NoPicture(f"{path}: {error}") from error
    finally:
        pyplot.close(figure)


def _draw(axis: Any, all_: Sequence[Figures], label: str, value: Value) -> None:
    for name in dict.fromkeys(each.name for each in all_):
        own = [each for each in all_ if each.name == name]
        streams = [each.streams for each in own]
        [line] = axis.plot(streams, [value(each) for each in own], "o-", label=name)
        if label.startswith("first"):
            late = [each.first_p95 for each in own]
            axis.plot(streams, late, "o--", color=line.get_color(), alpha=0.6)
    axis.set_xscale("log", base=2)
    axis.set_xticks(sorted({each.streams for each in all_}))
    axis.get_xaxis().set_major_formatter("{x:.0f}")
    axis.set_ylim(bottom=0)
    axis.set_xlabel("streams")
    axis.set_title(label, fontsize=10)
    axis.grid(alpha=0.3)
