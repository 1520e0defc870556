"""Simulation report: the figures of a run, as tables or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log

import msgspec
from rich.box import SIMPLE_HEAD
from rich.table import Table

from balancer.simulate.fleets import Machine
from balancer.simulate.world import CallOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One policy on one trace. Seconds, shares from 0 to 1."""

    policy: str
    calls: int
    refused: int
    first_p50: float
    first_p95: float
    first_p99: float
    first_mean: float
    whole_p50: float
    whole_p95: float
    wait_p95: float
    hit_share: float
    error: float | None
    shares: tuple[float, ...]


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of all values do not exceed; 0 for none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered), max(1, ceil(share * len(ordered)))) - 1]


def figures(
    policy: str, fleet: Sequence[Machine], outcomes: Sequence[CallOutcome]
) -> Figures:
    """Compute the figures of one run."""
    served = [each for each in outcomes if each.ended >= 0]
    first = [each.first - each.arrived for each in served]
    whole = [each.ended - each.arrived for each in served]
    tokens = sum(each.call.prompt_tokens for each in served)
    errors = [
        abs(log(max(each.predicted, 1e-3) / max(each.first - each.sent, 1e-3)))
        for each in served
        if each.predicted is not None
    ]
    return Figures(
        policy=policy,
        calls=len(outcomes),
        refused=sum(each.refused for each in outcomes),
        first_p50=quantile(first, 0.5),
        first_p95=quantile(first, 0.95),
        first_p99=quantile(first, 0.99),
        first_mean=sum(first) / max(1, len(first)),
        whole_p50=quantile(whole, 0.5),
        whole_p95=quantile(whole, 0.95),
        wait_p95=quantile([each.started - each.arrived for each in served], 0.95),
        hit_share=sum(each.cached for each in served) / max(1, tokens),
        error=quantile(errors, 0.5) if errors else None,
        shares=tuple(
            sum(each.engine == i for each in served) / max(1, len(served))
            for i in range(len(fleet))
        ),
    )


TIMES = ("first\np50", "\np95", "\np99", "whole\np50", "\np95", "wait\np95")
REST = ("hits", "turned\naway", "off\nby")


def times(title: str, rows: Sequence[Figures]) -> Table:
    """Return seconds to the first and last token and in the queue, and cache hits."""
    made = blank(title, (*TIMES, *REST))
    for row in rows:
        seconds = (
            *(row.first_p50, row.first_p95, row.first_p99),
            *(row.whole_p50, row.whole_p95, row.wait_p95),
        )
        made.add_row(
            row.policy,
            *map(digits, seconds),
            f"{row.hit_share:.0%}",
            str(row.refused),
            "" if row.error is None else f"{row.error:.0%}",
        )
    return made


def shares(fleet: Sequence[Machine], rows: Sequence[Figures]) -> Table:
    """Return the share of the requests that each machine answered."""
    made = blank("share of the requests", [each.name for each in fleet])
    for row in rows:
        made.add_row(row.policy, *(f"{share:.0%}" for share in row.shares))
    return made


def blank(title: str, columns: Sequence[str]) -> Table:
    """Return a table without rows; the first column is the policy."""
    made = Table(
        title=title,
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    made.add_column("policy", no_wrap=True, vertical="bottom")
    for name in columns:
        made.add_column(name, justify="right", no_wrap=True, vertical="bottom")
    return made


def digits(value: float) -> str:
    """Render seconds with three digits."""
    if value < 1:
        return f"{value:.3f}"
    return f"{value:.0f}" if value >= 99.95 else f"{value:.3g}"


def as_json(rows: Sequence[Figures]) -> str:
    """Return the figures as JSON."""
    return msgspec.json.format(msgspec.json.encode(rows), indent=2).decode()
