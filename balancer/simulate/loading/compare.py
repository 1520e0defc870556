"""Comparison of loading rules on the same fleet and the same trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import msgspec
from rich.table import Table

from balancer.simulate.loading.baselines import LlamaSwap, Ollama
from balancer.simulate.loading.edgeserve_policy import LoadingEdge
from balancer.simulate.loading.fleets import HostFleet
from balancer.simulate.loading.memory import HostMemory
from balancer.simulate.loading.world import play
from balancer.simulate.report import blank, digits, quantile
from balancer.simulate.world import CallOutcome, Policy
from balancer.telemetry.trace import Call
from edgeserve.errors import CommandError, SettingsError


class LoadingPolicy(Policy, Protocol):
    """A policy that also loads and unloads."""

    memory: HostMemory


LOADING: dict[str, Callable[[HostFleet], LoadingPolicy]] = {
    "edgeserve": partial(LoadingEdge, scales=True),
    "no-autoscale": partial(LoadingEdge, scales=False),
    "llama-swap": LlamaSwap,
    "ollama": Ollama,
}
"""`no-autoscale`: EdgeServe's loads on demand alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadingFigures:
    """One rule on one trace, in seconds; `wait` is from arrival to a slot.

    `unloads` are engines that left without being in the way of another.
    """

    policy: str
    calls: int
    wait_p50: float
    wait_p95: float
    wait_mean: float
    wait_most: float
    first_p50: float
    first_p95: float
    loads: int
    evictions: int
    unloads: int


def compare(
    fleet: HostFleet, calls: Sequence[Call], names: Sequence[str] = (), seed: int = 1
) -> list[LoadingFigures]:
    """Run the named rules, or all.

    Raises SettingsError for an unknown rule, CommandError for an unknown model.
    """
    for name in names:
        if name not in LOADING:
            raise SettingsError(
                f"no policy is called {name!r}; there are {', '.join(LOADING)}"
            )
    if missing := {call.model for call in calls} - {*fleet.models}:
        raise CommandError(
            f"no machine has {', '.join(sorted(missing))}; the fleet has"
            f" {', '.join(fleet.models)}"
        )
    found = list[LoadingFigures]()
    for name in names or LOADING:
        policy = LOADING[name](fleet)
        outcomes = play(fleet, calls, policy, seed)
        found.append(_figures(name, outcomes, policy.memory))
    return found


def _figures(
    name: str, outcomes: Sequence[CallOutcome], memory: HostMemory
) -> LoadingFigures:
    waits = [each.started - each.arrived for each in outcomes]
    first = [each.first - each.arrived for each in outcomes]
    return LoadingFigures(
        policy=name,
        calls=len(outcomes),
        wait_p50=quantile(waits, 0.5),
        wait_p95=quantile(waits, 0.95),
        wait_mean=sum(waits) / max(1, len(waits)),
        wait_most=max(waits, default=0.0),
        first_p50=quantile(first, 0.5),
        first_p95=quantile(first, 0.95),
        loads=memory.loads,
        evictions=memory.evictions,
        unloads=memory.unloads,
    )


COLUMNS = (
    *("wait\np50", "\np95", "\nmean", "\nmost", "first\np50", "\np95"),
    *("loads", "evicted", "let go"),
)


def table(title: str, rows: Sequence[LoadingFigures]) -> Table:
    """Return seconds until a slot and until the first token, loads and evictions."""
    made = blank(title, COLUMNS)
    for row in rows:
        times = (row.wait_p50, row.wait_p95, row.wait_mean, row.wait_most)
        made.add_row(
            row.policy,
            *map(digits, (*times, row.first_p50, row.first_p95)),
            *map(str, (row.loads, row.evictions, row.unloads)),
        )
    return made


def as_json(found: dict[str, list[LoadingFigures]]) -> str:
    """Return the figures of each traffic as JSON."""
    return msgspec.json.format(msgspec.json.encode(found), indent=2).decode()
