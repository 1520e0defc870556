"""What this node is and serves now: the one place that reports are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edgeserve import __version__
from edgeserve.background import failures
from edgeserve.wire import EngineReport, NodeReport
from node.events import Feed
from node.hardware import Measured
from node.supervisor import Supervisor


class Identified(Protocol):
    """Whoever knows the node's id, which a twin may change."""

    @property
    def id(self) -> str:
        """The id now."""
        ...

    def renew(self) -> None:
        """Take a new id."""
        ...


@dataclass(kw_only=True)
class NodeState:
    """Mutable, and changed by its owners only: the agent and the engines' host."""

    name: str
    identity: Identified
    instance: str
    hardware: Measured
    port: int = 0
    supervisors: list[Supervisor] = field(default_factory=list[Supervisor])
    problems: tuple[str, ...] = ()
    draining: bool = False

    def __post_init__(self) -> None:
        """Open the feed that tells of every change."""
        self.feed = Feed(self.report, self.engines)

    def report(self) -> NodeReport:
        """Say everything a balancer may know."""
        return NodeReport(
            id=self.identity.id,
            instance=self.instance,
            name=self.name,
            version=__version__,
            state="draining" if self.draining else "up",
            port=self.port,
            hardware=self.hardware.latest,
            engines=tuple(self.engines().values()),
            problems=self.problems,
            failures=dict(failures.counts),
        )

    def engines(self) -> Mapping[str, EngineReport]:
        """Say how each engine is, by id."""
        return {each.spec.id: each.report for each in self.supervisors}

    def supervisor(self, id_: str) -> Supervisor:
        """Return the engine with that id."""
        return next(each for each in self.supervisors if each.spec.id == id_)

    def serve(self, supervisors: Sequence[Supervisor]) -> None:
        """Tell of another set of engines."""
        self.supervisors = list(supervisors)
        self.feed.report_changed()

    def leave(self) -> None:
        """Take no more work from now on, and say so."""
        if not self.draining:
            self.draining = True
            self.feed.report_changed()
