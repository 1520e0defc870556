"""Link table: the networks between nodes, as heads of groups have measured them.

A link counts as long as both processes are the same: a restarted machine may be
connected otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from balancer.fleet.members import Fleet
from balancer.groups.members import SplittableModel, machines
from balancer.groups.split import MOST_WORKERS, Links, Member
from edgeserve.orders.groups import NodeLink, understand

RETRY_SECONDS = 60.0
"""When a worker is tried again that its head could not reach."""

MOST_HEADS = 3
"""Heads whose links are measured for one model."""

Pair = tuple[str, str]
"""Head and worker, by their ids."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A link, None where the worker was not reached, of two processes at a time."""

    link: NodeLink | None
    instances: tuple[str, str]
    at: float


@dataclass
class LinkTable:
    """The links that were measured; `version` grows with each."""

    clock: Callable[[], float]
    version: int = 0
    _measured: dict[Pair, Measured] = field(default_factory=dict[Pair, Measured])

    def known(self, fleet: Fleet) -> Links:
        """Return the links between the processes that are there."""
        return {
            pair: each.link
            for pair, each in self._measured.items()
            if each.instances == instances(fleet, pair)
        }

    def missing(self, fleet: Fleet, model: SplittableModel) -> list[Pair]:
        """Return the links that groups would need and that are not measured."""
        known, now = self.known(fleet), self.clock()
        return [
            pair
            for pair in likely_pairs(machines(fleet, model, {}))
            if pair not in known
            or (known[pair] is None and now - self._measured[pair].at > RETRY_SECONDS)
        ]

    def note(self, fleet: Fleet, pair: Pair, link: NodeLink | None) -> None:
        """Remember a link; None where the worker was not reached."""
        self._measured = {
            key: each
            for key, each in self._measured.items()
            if each.instances == instances(fleet, key)
        }
        self._measured[pair] = Measured(
            link=link, instances=instances(fleet, pair), at=self.clock()
        )
        self.version += 1


def instances(fleet: Fleet, pair: Pair) -> tuple[str, str]:
    """Return the processes of two nodes, "" for one that is not there."""
    head, worker = (fleet.node(each) for each in pair)
    return (
        head.report.instance if head else "",
        worker.report.instance if worker else "",
    )


def likely_pairs(able: Sequence[Member]) -> Iterator[Pair]:
    """Yield the pairs that a group may use: quickest heads, largest workers."""
    heads = sorted((m for m in able if m.head), key=lambda m: -m.bytes_per_second)
    workers = sorted((m for m in able if m.worker), key=lambda m: -m.memory)
    for head in heads[:MOST_HEADS]:
        for worker in workers[: MOST_WORKERS + 1]:
            if worker.node != head.node and understand(head.rpc, worker.rpc):
                yield head.node, worker.node
