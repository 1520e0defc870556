"""Engine candidates: the engines that a request could go to, and their names. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from balancer.fleet.members import Fleet, Node
from edgeserve.http.types import Origin
from edgeserve.openai import names_of, normal
from edgeserve.wire import EngineReport, Hardware

EngineKey = tuple[str, str]
"""Node id and engine id: names one engine in the fleet."""

EngineIncarnation = tuple[str, str, str, int]
"""The same with the node's process and the engine's epoch: one run of an engine."""

FULL_NOW = "its node had no slot left a moment ago"
"""Why an engine is unavailable that refused a request since its node's last event."""


@dataclass(frozen=True, kw_only=True)
class EngineCandidate:
    """One engine and its address.

    `unavailable` says why it cannot take requests now; `temporary` whether that may
    change by itself soon, so that waiting makes sense. `identity` is the node's own id,
    `instance` its process, `hardware` its machine, where known. A lower `rank` goes
    first at any load; `risk` is the expected share of failures, 0 to 1.
    """

    node_id: str
    node: str
    origin: Origin
    engine: EngineReport
    unavailable: str | None = None
    temporary: bool = False
    identity: str = ""
    instance: str = ""
    hardware: Hardware | None = None
    rank: int = 0
    risk: float = 0.0

    @cached_property
    def key(self) -> EngineKey:
        """Its name in the fleet."""
        return self.node_id, self.engine.id

    @property
    def incarnation(self) -> EngineIncarnation:
        """Its name until it restarts."""
        return self.node_id, self.engine.id, self.instance, self.engine.epoch

    @cached_property
    def names(self) -> frozenset[str]:
        """Its model, its variant and its file, in normal spelling."""
        return names_of(self.engine)

    @property
    def listed(self) -> tuple[str, str]:
        """The names that are shown to clients."""
        return normal(self.engine.model), normal(self.engine.variant)

    def serves(self, model: str) -> bool:
        """Whether `model`, in normal spelling, is one of its names."""
        return model in self.names


def candidates(fleet: Fleet) -> tuple[EngineCandidate, ...]:
    """List every engine of every node, the unavailable ones with their reason."""
    return tuple(
        _candidate(node, engine)
        for node in fleet.nodes
        for engine in node.report.engines
    )


def _candidate(node: Node, engine: EngineReport) -> EngineCandidate:
    unavailable, temporary = _unavailable(node, engine)
    return EngineCandidate(
        node_id=node.id,
        node=node.name,
        origin=node.origin,
        engine=engine,
        unavailable=unavailable,
        temporary=temporary,
        identity=node.report.id,
        instance=node.report.instance,
        hardware=node.report.hardware,
    )


def _unavailable(node: Node, engine: EngineReport) -> tuple[str | None, bool]:
    if node.state == "draining":
        return "its node is shutting down", False
    if node.state != "up":
        why = f"its node is {node.state}: {node.problem}"
        return why, node.state == "suspect"
    if engine.state not in {"ready", "busy"}:
        why = f": {engine.reason}" if engine.reason else ""
        return f"{engine.state}{why}", engine.state != "quarantined"
    if engine.id in node.full:
        return FULL_NOW, True
    return None, False


@dataclass(frozen=True, kw_only=True)
class Served:
    """One name that clients may call now: a model or one of its variants."""

    name: str
    nodes: tuple[str, ...]
    abilities: tuple[str, ...]
    context: int
    slots: int


def served(all_: Iterable[EngineCandidate]) -> list[Served]:
    """List the names that can be called now, each model before its variants."""
    found: dict[str, list[EngineCandidate]] = {}
    for each in all_:
        if _callable(each):
            for name in set(each.listed):
                found.setdefault(name, []).append(each)
    return [_served(name, found[name]) for name in sorted(found)]


def _callable(candidate: EngineCandidate) -> bool:
    """Whether a request for it would be sent, or would wait only a moment."""
    ready = candidate.engine.state in {"ready", "busy"}
    return candidate.unavailable is None or (ready and candidate.temporary)


def _served(name: str, engines: list[EngineCandidate]) -> Served:
    return Served(
        name=name,
        nodes=tuple(sorted({each.node for each in engines})),
        abilities=tuple(sorted({a for each in engines for a in each.engine.abilities})),
        context=max(each.engine.context for each in engines),
        slots=sum(each.engine.slots for each in engines),
    )
