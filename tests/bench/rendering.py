"""Quantiles and tables of the benchmarks. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Render a table."""
    lines = [columns, ["---" for _ in columns], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
