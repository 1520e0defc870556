"""Comparison report: the table and the picture of a comparison."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table

from edgeserve.errors import CommandError
from edgeserve.models.comparison import Comparison, Measured
from edgeserve.models.memory import MIB, size
from quantize.compare import ranked

COLUMNS = (
    "type", "file", "bits", "perplexity", "ln ratio", "KL divergence", "same top",
    "prefill", "decode",
)  # fmt: skip


class NoPicture(CommandError):
    """matplotlib is not installed."""


def table(comparison: Comparison) -> Table:
    """Return the table: the base first, then variants by divergence from it."""
    origin = comparison.dequantized_from
    stated = f", dequantized from {origin}" if origin else ""
    title = f"against {comparison.base.file}{stated}"
    drawn = Table(title=title, caption=_caption(comparison))
    for heading in COLUMNS:
        drawn.add_column(heading, justify="left" if heading == "type" else "right")
    for each in (comparison.base, *ranked(comparison.variants)):
        base = each is comparison.base
        label = f"{each.type} (base)" if base else label_of(each, comparison)
        drawn.add_row(label, *_row(each))
    return drawn


def _caption(comparison: Comparison) -> str:
    tokens = comparison.base.quality.tokens
    quality = f"{tokens:,} predictions over {comparison.text}, ± standard error"
    measured = [each.speeds for each in comparison.variants if each.speeds]
    if not measured:
        return quality
    ways = " and ".join(sorted({each.by for each in measured}))
    return (
        f"{quality}; speeds in tokens/s on {comparison.machine},"
        f" {measured[0].threads} threads, by {ways}"
    )


def _row(each: Measured) -> list[str]:
    quality = each.quality
    return [
        size(each.bytes),
        f"{each.bits:.2f}",
        _pair(quality.perplexity, "{:.3f}"),
        _pair(quality.log_ratio, "{:+.4f}"),
        _pair(quality.divergence, "{:.5f}"),
        _pair(quality.same_top, "{:.1%}"),
        _rate(each.prefill),
        _rate(each.decode),
    ]


def _pair(pair: tuple[float, float] | None, form: str) -> str:
    if pair is None:
        return ""
    value, error = form.format(pair[0]), form.format(pair[1]).lstrip("+")
    return f"{value} ± {error}"


def _rate(rate: float | None) -> str:
    return "" if rate is None else f"{rate:.1f}"


def picture(comparison: Comparison, path: Path) -> None:
    """Draw KL divergence against size and against speed. Raises NoPicture."""
    try:
        importlib.import_module("matplotlib").use("Agg")
        pyplot = importlib.import_module("matplotlib.pyplot")
    except ImportError as error:
        raise NoPicture(
            "the picture needs matplotlib: `pip install '.[quantize]'`"
        ) from error
    measures = _measures(comparison)
    count = len(measures)
    figure, axes = pyplot.subplots(1, count, figsize=(4.4 * count, 4.2), squeeze=False)
    for axis, (label, value) in zip(axes[0], measures, strict=True):
        _draw(axis, comparison, label, value)
    figure.suptitle(f"{comparison.base.file}: quality, size and speed of each variant")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


Measure = Callable[[Measured], float]


def _measures(comparison: Comparison) -> list[tuple[str, Measure]]:
    """Return the horizontal axes; speeds only if all variants have them."""
    measures: list[tuple[str, Measure]] = [("size, MiB", lambda each: each.bytes / MIB)]
    if all(each.speeds for each in comparison.variants):
        measures.append(("prefill, tokens/s", lambda each: each.prefill or 0.0))
        measures.append(("decode, tokens/s", lambda each: each.decode or 0.0))
    return measures


def _draw(axis: Any, comparison: Comparison, label: str, value: Measure) -> None:
    for each in ranked(comparison.variants):
        pair = each.quality.divergence
        if pair is None:
            continue
        where = value(each)
        axis.errorbar(where, pair[0], yerr=pair[1], fmt="o", capsize=3)
        axis.annotate(
            label_of(each, comparison),
            (where, pair[0]),
            xytext=(5, 5),
            textcoords="offset points",
        )
    axis.set_xlabel(label)
    axis.set_ylabel("mean KL divergence from the base, nats")
    axis.margins(0.2)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)


def label_of(each: Measured, comparison: Comparison) -> str:
    """Return the type, or the file's name where several variants share the type."""
    same = [other for other in comparison.variants if other.type == each.type]
    return each.type if len(same) == 1 else each.file.removesuffix(".gguf")
