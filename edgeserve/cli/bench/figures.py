"""Benchmark figures: what many requests amount to. Pure.

Defined as by NVIDIA's aiperf: throughput counts from the first request to the last
token, and the time per token is (last - first content) / (tokens - 1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import to_builtins

from edgeserve.cli.bench.load import Sample


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One target at one number of streams. Seconds, and tokens a second.

    `memory` is what its engines take, in bytes; 0 where it is unknown.
    """

    name: str
    streams: int
    requests: int
    failed: int
    seconds: float
    requests_per_second: float
    written_per_second: float
    tokens_per_second: float
    first_p50: float
    first_p95: float
    token_p50: float
    token_p95: float
    whole_p50: float
    whole_p95: float
    memory: int = 0
    errors: tuple[str, ...] = ()

    def shown(self) -> dict[str, Any]:
        """Render for JSON."""
        found: dict[str, Any] = to_builtins(self)
        return found


def figures(
    name: str, streams: int, samples: Sequence[Sample], memory: int = 0
) -> Figures:
    """Sum up the requests of one number of streams."""
    good = [each for each in samples if not each.error]
    begun = min((each.asked for each in samples), default=0.0)
    seconds = max((each.last for each in good), default=begun) - begun
    first = [each.first - each.asked for each in good]
    whole = [each.last - each.asked for each in good]
    between = [
        (each.last - each.first) / (each.answer - 1) for each in good if each.answer > 1
    ]
    written = sum(each.answer for each in good)
    read = sum(each.prompt for each in good)
    reasons = Counter(each.error for each in samples if each.error)
    return Figures(
        name=name,
        streams=streams,
        requests=len(samples),
        failed=len(samples) - len(good),
        seconds=seconds,
        requests_per_second=_rate(len(good), seconds),
        written_per_second=_rate(written, seconds),
        tokens_per_second=_rate(written + read, seconds),
        first_p50=quantile(first, 0.5),
        first_p95=quantile(first, 0.95),
        token_p50=quantile(between, 0.5),
        token_p95=quantile(between, 0.95),
        whole_p50=quantile(whole, 0.5),
        whole_p95=quantile(whole, 0.95),
        memory=memory,
        errors=tuple(
            f"{text} ({count} times)" for text, count in reasons.most_common(3)
        ),
    )


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0


def quantile(values: Sequence[float], share: float) -> float:
    """Return a quantile, interpolated between neighbours; 0 of no values."""
    if not values:
        return 0.0
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (at - below) * (ordered[above] - ordered[below])


HEADS = (
    "streams", "tok/s", "in + out", "first p50", "p95", "token p50", "answer p50",
    "memory",
)  # fmt: skip


def table(
    all_: Sequence[Figures],
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Lay out heads and rows; endpoints and failures have columns where they matter."""
    several = len({each.name for each in all_}) > 1
    failed = any(each.failed for each in all_)
    heads = ("endpoint",) * several + HEADS + ("failed",) * failed
    rows = [
        (each.name,) * several
        + _cells(each)
        + (f"{each.failed} of {each.requests}",) * failed
        for each in all_
    ]
    return heads, rows


def _cells(each: Figures) -> tuple[str, ...]:
    return (
        str(each.streams),
        f"{each.written_per_second:,.1f}",
        f"{each.tokens_per_second:,.1f}",
        shown_seconds(each.first_p50),
        shown_seconds(each.first_p95),
        shown_seconds(each.token_p50),
        shown_seconds(each.whole_p50),
        f"{each.memory / 2**20:,.0f} MiB" if each.memory else "",
    )


def shown_seconds(seconds: float) -> str:
    """Render a time in the unit in which it is read."""
    if seconds <= 0:
        return ""
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.3g} s"


def markdown(all_: Sequence[Figures]) -> str:
    """Render the table for a document."""
    heads, rows = table(all_)
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join("| " + " | ".join(each) + " |" for each in lines)
