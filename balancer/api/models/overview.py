"""Overview of models for admins: limits, desired state, problems, engines. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

from msgspec import structs

from balancer.fleet.catalog import catalog
from balancer.fleet.engines import EngineCandidate
from balancer.fleet.members import Fleet, Node
from balancer.lifecycle.replicas.limits import ReplicaLimits
from balancer.lifecycle.replicas.wishes import LimitProblem, forbidden, wishes
from edgeserve.openai import normal

Json = dict[str, Any]


Fact = tuple[str, str, Json]
"""A model or variant, the list of its model's row, and what to add there."""


def overview(
    fleet: Fleet,
    candidates: Sequence[EngineCandidate],
    limits: Mapping[str, ReplicaLimits],
) -> list[Json]:
    """Return a row for each model of which anything is known, in the order of names.

    What is said of a variant is in the row of its model, with the variant's name. Nodes
    are in the order of names, too: which one joined first says nothing of a model.
    """
    rows: dict[str, Json] = {}
    problems = wishes(limits, candidates, forbidden(fleet.nodes)).problems
    for name, field, value in chain(
        _engines(sorted(candidates, key=lambda each: (each.node, each.engine.id))),
        _limits(limits, problems),
        *map(_node, sorted(fleet.nodes, key=lambda each: each.name)),
    ):
        model = name.partition(":")[0]
        rows.setdefault(model, _empty(model))[field].append(value)
    for entry in catalog(candidates):
        rows[entry.name].update(state=entry.state, progress=entry.progress)
    return [rows[name] for name in sorted(rows)]


def _empty(model: str) -> Json:
    facts = ("limits", "desired", "problems", "engines", "unplanned")
    state = {"model": model, "state": None, "progress": None}
    return {**state, **{field: list[Json]() for field in facts}}


def _engines(candidates: Iterable[EngineCandidate]) -> Iterator[Fact]:
    for each in candidates:
        shown = {"node": each.node, "unavailable": each.unavailable}
        yield each.listed[0], "engines", {**shown, "report": each.engine}


def _limits(
    limits: Mapping[str, ReplicaLimits], problems: Iterable[LimitProblem]
) -> Iterator[Fact]:
    for model, limit in limits.items():
        yield model, "limits", {"model": model, **structs.asdict(limit)}
    for each in problems:
        yield each.model, "problems", {"node": None, **asdict(each)}


def _node(node: Node) -> Iterator[Fact]:
    here = {"node": node.name}
    for each in node.report.desired:
        yield each.model, "desired", here | structs.asdict(each)
    for problem in node.report.unmet:
        yield problem.model, "problems", here | structs.asdict(problem)
    for other in node.report.available:
        yield normal(other.model), "unplanned", here | structs.asdict(other)
