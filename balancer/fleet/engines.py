"""Engine candidates: the engines that a request could go to, and their names. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

import msgspec

from balancer.fleet.members import Fleet, Node
from edgeserve.http.types import Origin
from edgeserve.openai import names_of, normal
from edgeserve.reports.hardware import Hardware
from edgeserve.wire import EngineReport

EngineKey = tuple[str, str]
"""Node id and engine id: names one engine in the fleet."""

NOT_LOADED = "not loaded here"
"""Why an absent engine takes no requests, where nothing but its load is in the way."""

ASLEEP = "its machine sleeps; it is woken where nothing else serves in time"

UNLIMITED = 2**40
"""More tokens than any prompt has."""

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

    @cached_property
    def context(self) -> int:
        """Its context in tokens, as far as it is known: longer prompts do not fit.

        Of a server that does not tell it nothing is assumed, but that it refuses again
        what is as long as a prompt that it has refused.
        """
        engine = self.engine
        refused = engine.served.too_long if engine.served else 0
        return engine.context or refused or UNLIMITED

    @property
    def listed(self) -> tuple[str, str]:
        """The names that are shown to clients."""
        return normal(self.engine.model), normal(self.engine.variant)

    def serves(self, model: str) -> bool:
        """Whether `model`, in normal spelling, is one of its names."""
        return model in self.names


def candidates(fleet: Fleet) -> tuple[EngineCandidate, ...]:
    """List every engine of every node, the unavailable ones with their reason."""
    return Candidates().of(fleet)


class Candidates:
    """Lists the engines of fleets; those that are as before stay the same objects.

    A node may have a hundred models on its disk, and each request changes one engine.
    """

    def __init__(self) -> None:
        self._nodes: dict[str, tuple[Node, object, dict[str, EngineCandidate]]] = {}

    def of(self, fleet: Fleet) -> tuple[EngineCandidate, ...]:
        """List every engine of every node, the unavailable ones with their reason."""
        before, self._nodes = self._nodes, {}
        for node in fleet.nodes:
            if (same := before.get(node.id)) is not None and same[0] is node:
                self._nodes[node.id] = same
                continue
            report = node.report
            pinned = frozenset(each.id for each in report.engines if each.pinned)
            about = (
                *(node.name, node.origin, node.state, node.full, node.problem, pinned),
                *(report.id, report.instance, report.hardware, report.desired),
            )
            _, old, known = before.get(node.id, (None, None, {}))
            if old != about:
                known = {}
            found = dict[str, EngineCandidate]()
            for engine in report.engines:
                each = known.get(engine.id)
                if each is None or each.engine is not engine:
                    each = _candidate(node, engine, pinned)
                found[engine.id] = each
            self._nodes[node.id] = node, about, found
        return tuple(
            chain.from_iterable(found.values() for _, _, found in self._nodes.values())
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs between two lists of candidates.

    `pairs` are those that are new or other than before, after what they were; `gone`
    are the keys of those that left.
    """

    pairs: Sequence[tuple[EngineCandidate | None, EngineCandidate]]
    gone: Sequence[EngineKey]

    @classmethod
    def of(
        cls, before: Sequence[EngineCandidate], after: Sequence[EngineCandidate]
    ) -> Difference:
        """Compare by identity, since candidates that did not change stay the same."""
        if len(before) == len(after):
            both = zip(before, after, strict=True)
            pairs = [(old, new) for old, new in both if old is not new]
            if all(old.key == new.key for old, new in pairs):
                return cls(pairs, ())
        known = {each.key: each for each in before}
        there = {each.key for each in after}
        found = [(known.get(each.key), each) for each in after]
        return cls(
            [(old, new) for old, new in found if old is not new],
            [key for key in known if key not in there],
        )

    @property
    def changed(self) -> list[EngineCandidate]:
        """Those that are new or other than before."""
        return [new for _, new in self.pairs]


def is_as_eligible(old: EngineCandidate, new: EngineCandidate) -> bool:
    """Whether nothing but taken slots and the machine's readings have changed."""
    engine = msgspec.structs.replace(new.engine, busy=old.engine.busy)
    if {old.engine.state, engine.state} == {"ready", "busy"}:
        engine = msgspec.structs.replace(engine, state=old.engine.state)
    return old == replace(new, engine=engine, hardware=old.hardware)


def _candidate(
    node: Node, engine: EngineReport, pinned: frozenset[str]
) -> EngineCandidate:
    unavailable, temporary = _unavailable(node, engine, pinned)
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


def _unavailable(
    node: Node, engine: EngineReport, pinned: frozenset[str]
) -> tuple[str | None, bool]:
    if node.state == "draining":
        return "its node is shutting down", False
    if node.state == "asleep":
        return node.problem or ASLEEP, not node.problem
    if node.state != "up":
        why = f"its node is {node.state}: {node.problem}"
        return why, node.state == "suspect"
    if engine.state == "absent":
        return _not_loaded(node, engine, pinned)
    if engine.state not in {"ready", "busy"}:
        return _not_ready(engine), engine.state != "quarantined"
    if engine.id in node.full:
        return FULL_NOW, True
    return None, False


def _not_loaded(
    node: Node, engine: EngineReport, pinned: frozenset[str]
) -> tuple[str, bool]:
    """Say why an absent engine is, and whether a request may have it loaded."""
    names = names_of(engine)
    if any(each.forbidden and each.model in names for each in node.report.desired):
        return "not loaded here: it is forbidden on this node", False
    if not pinned.isdisjoint(engine.evicts):
        return "not loaded here: what is pinned leaves no room for it", False
    return NOT_LOADED, True


def _not_ready(engine: EngineReport) -> str:
    if engine.state == "loading" and engine.load_seconds:
        return f"loading, about {seconds_left(engine):.0f} s left"
    return f"{engine.state}: {engine.reason}" if engine.reason else engine.state


def seconds_left(engine: EngineReport) -> float:
    """Return how long its load will go on."""
    return engine.load_seconds * (1 - (engine.progress or 0.0))
