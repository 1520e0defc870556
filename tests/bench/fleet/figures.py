"""Figures of the contests, over seeds and beside the best peer. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from statistics import fmean, geometric_mean, median

from tests.bench.fleet.contest import Attempt, Run
from tests.bench.fleet.contestants import OURS
from tests.bench.rendering import markdown, quantile

FIRST_MINUTE = 60.0
LEAST_SECONDS = 1e-3
TIMES = ("mean", "p50", "p95", "p99", "whole_p95", "wall")
"""Less is better; `cached` is the only figure of which more is."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One contestant under one load, with one seed or merged. Seconds and shares.

    `mean` to `p99` are times to the first token. `cpu` is what the engines spent.
    """

    contestant: str
    load: str
    mean: float
    p50: float
    p95: float
    p99: float
    whole_p95: float
    wall: float
    cached: float
    cpu: float
    requests: int
    errors: int
    shares: dict[str, float]
    moves: int = 0


def figures(run: Run) -> Figures:
    """Sum up one run."""
    first = [each.first for each in run.answers if each.first is not None]
    whole = [each.whole for each in run.answers if each.whole is not None]
    prompt = sum(each.prompt for each in run.answers)
    nodes = [each.node for each in run.answers]
    return Figures(
        contestant=run.contestant,
        load=run.load,
        mean=fmean(first or [0.0]),
        p50=quantile(first, 0.5),
        p95=quantile(first, 0.95),
        p99=quantile(first, 0.99),
        whole_p95=quantile(whole, 0.95),
        wall=run.wall,
        cached=sum(each.cached for each in run.answers) / max(prompt, 1),
        cpu=sum(run.cpu.values()),
        requests=len(run.answers),
        errors=sum(bool(each.error) for each in run.answers),
        shares={name: nodes.count(name) / max(len(nodes), 1) for name in run.cpu},
        moves=sum(each.number > 0 for each in run.attempts),
    )


def merged(seeds: Sequence[Figures]) -> Figures:
    """Merge the seeds: geometric mean of times, mean of shares, sum of counts."""
    times = {
        name: geometric_mean(max(getattr(s, name), LEAST_SECONDS) for s in seeds)
        for name in (*TIMES, "cpu")
    }
    nodes = seeds[0].shares
    return replace(
        seeds[0],
        **times,  # type: ignore[arg-type]  # fields that are floats
        cached=fmean(each.cached for each in seeds),
        shares={node: fmean(each.shares[node] for each in seeds) for node in nodes},
        requests=sum(each.requests for each in seeds),
        errors=sum(each.errors for each in seeds),
        moves=sum(each.moves for each in seeds),
    )


@dataclass(frozen=True)
class Errors:
    """How wrong predicted first-token times were, as shares of the true ones."""

    count: int
    p50: float
    p90: float

    @classmethod
    def of(cls, attempts: Iterable[Attempt]) -> Errors:
        found = [
            abs(each.predicted - each.first) / max(each.first, LEAST_SECONDS)
            for each in attempts
            if each.predicted is not None and each.first is not None
        ]
        if not found:
            return cls(0, 0.0, 0.0)
        return cls(len(found), median(found), quantile(found, 0.9))

    def __str__(self) -> str:
        told = f"{self.p50:.0%} / {self.p90:.0%} ({self.count})"
        return told if self.count else "none"


def predictions(runs: Sequence[Run]) -> list[tuple[str, Errors, Errors]]:
    """Return the errors of each load, in the first minute and after it."""
    rows: list[tuple[str, Errors, Errors]] = []
    for load in dict.fromkeys(run.load for run in runs):
        all_ = [a for run in runs if run.load == load for a in run.attempts]
        early = [each for each in all_ if each.at < FIRST_MINUTE]
        late = [each for each in all_ if each.at >= FIRST_MINUTE]
        rows.append((load, Errors.of(early), Errors.of(late)))
    return rows


@dataclass(frozen=True)
class Beside:
    """One figure of EdgeServe beside the best peer's; above 1, EdgeServe is better."""

    load: str
    figure: str
    ours: float
    best: float
    peer: str

    @property
    def ratio(self) -> float:
        better, worse = (
            (self.ours, self.best)
            if self.figure == "cached"
            else (self.best, self.ours)
        )
        return better / max(worse, LEAST_SECONDS)


def beside(rows: Sequence[Figures]) -> list[Beside]:
    """Compare each figure with that of the peer which is best at it."""
    found: list[Beside] = []
    for load in dict.fromkeys(each.load for each in rows):
        ours = [e for e in rows if e.load == load and e.contestant == OURS]
        peers = [e for e in rows if e.load == load and e.contestant != OURS]
        for name in (*TIMES, "cached") if ours and peers else ():
            choose = max if name == "cached" else min
            best = choose(peers, key=attrgetter(name))
            values = getattr(ours[0], name), getattr(best, name)
            found.append(Beside(load, name, *values, best.contestant))
    return found


COLUMNS = (
    "contestant", "first mean s", "p50", "p95", "p99", "whole p95", "wall", "cached",
    "CPU s", "fast / middle / slow", "moves", "requests", "errors",
)  # fmt: skip


def table(rows: Iterable[Figures]) -> str:
    return markdown(COLUMNS, map(_row, rows))


def _row(each: Figures) -> tuple[str, ...]:
    return (
        each.contestant,
        *(f"{getattr(each, name):.2f}" for name in TIMES),
        f"{each.cached:.0%}",
        f"{each.cpu:.1f}",
        " / ".join(f"{share:.0%}" for share in each.shares.values()),
        str(each.moves),
        str(each.requests),
        str(each.errors),
    )


def comparison(rows: Iterable[Beside]) -> str:
    """Render by how much EdgeServe is better than the best peer, figure by figure."""
    by_load: dict[str, list[Beside]] = {}
    for each in rows:
        by_load.setdefault(each.load, []).append(each)
    lines = (
        (load, *(f"{each.ratio:.2f} ({each.peer})" for each in found))
        for load, found in by_load.items()
    )
    return markdown(("load", "mean", *TIMES[1:], "cached"), lines)


def mistaken(rows: Iterable[tuple[str, Errors, Errors]]) -> str:
    """Render the errors of predictions: median / p90 (count)."""
    lines = ((load, str(early), str(late)) for load, early, late in rows)
    return markdown(("load", "first minute", "after"), lines)
