"""The policies side by side, as tables or as JSON."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich.box import SIMPLE_HEAD
from rich.table import Table

from balancer.simulate.figures import Figures
from balancer.simulate.fleets import Machine

TIMES = ("first\np50", "\np95", "\np99", "whole\np50", "\np95", "wait\np95")
REST = ("hits", "turned\naway", "off\nby")


def times(title: str, rows: Sequence[Figures]) -> Table:
    """Seconds to the first token, to the last and in the queue; what was cached."""
    made = _table(title, (*TIMES, *REST))
    for row in rows:
        seconds = (
            *(row.first_p50, row.first_p95, row.first_p99),
            *(row.whole_p50, row.whole_p95, row.wait_p95),
        )
        made.add_row(
            row.policy,
            *map(_seconds, seconds),
            f"{row.hit_share:.0%}",
            str(row.refused),
            "" if row.error is None else f"{row.error:.0%}",
        )
    return made


def shares(fleet: Sequence[Machine], rows: Sequence[Figures]) -> Table:
    """Which part of the requests each machine answered."""
    made = _table("share of the requests", [each.name for each in fleet])
    for row in rows:
        made.add_row(row.policy, *(f"{share:.0%}" for share in row.shares))
    return made


def _table(title: str, columns: Sequence[str]) -> Table:
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


def _seconds(value: float) -> str:
    if value < 1:
        return f"{value:.3f}"
    return f"{value:.0f}" if value >= 99.95 else f"{value:.3g}"


def as_json(rows: Sequence[Figures]) -> str:
    """The same figures for a program."""
    return msgspec.json.format(msgspec.json.encode(rows), indent=2).decode()
