"""Fleet membership: which nodes were seen, which answer, what each serves. Pure.

Every event makes a new `Fleet`. A `NodeAddress` is where a node was seen; addresses of
the same node are one `Node`. The end of an announcement alone removes no node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import msgspec

from balancer.fleet.awoken import awoken
from balancer.fleet.names import with_unique_names
from edgeserve.http.types import Origin
from edgeserve.wire import EngineReport, NodeReport

AddressState = Literal["seen", "up", "suspect", "unreachable"]
"""`seen` has not answered yet; `suspect` fell silent; `unreachable` stayed silent."""

NodeState = Literal["up", "draining", "asleep", "suspect", "unreachable"]


@dataclass(frozen=True)
class LastReport:
    """The last report of a node, and the address that it came from."""

    origin: Origin
    report: NodeReport


@dataclass(frozen=True, kw_only=True)
class NodeAddress:
    """One address of a node: where it was seen, and the state of its event stream.

    `expected` is the id in the announcement, and `name` what it is called before it has
    said that itself. `since` is when the announcement or the answers last ended, in the
    caller's seconds. `full` names engines that refused a request since the last event.
    `unwoken` says why its machine, which sleeps, cannot be woken for now.
    """

    key: str
    source: str
    origins: tuple[Origin, ...]
    expected: str | None = None
    name: str = ""
    announced: bool = True
    state: AddressState = "seen"
    last_report: LastReport | None = None
    problem: str | None = None
    since: float = 0.0
    full: frozenset[str] = frozenset()
    unwoken: str = ""

    @property
    def asleep(self) -> bool:
        """Whether its machine sleeps, by its own last word."""
        sleep = self.last_report and self.last_report.report.sleep
        return bool(sleep and sleep.asleep)

    @cached_property
    def node(self) -> Node | None:
        """The node, where it is seen at no other address; the same object each time."""
        if self.last_report is None:
            return None
        reported = _Reported(self, self.last_report)
        return _node(self.last_report.report.id, (reported,), reported)


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node. `id` is its own; where two nodes have the same, an address follows.

    `name` is its name for people, different from every other node's.
    """

    id: str
    name: str
    report: NodeReport
    origin: Origin
    state: NodeState
    addresses: tuple[str, ...]
    full: frozenset[str] = frozenset()
    problem: str | None = None
    _last_name: Node | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def takes_orders(self) -> bool:
        """Whether it is a node of ours, not a server of another program."""
        return all(each.kind != "server" for each in self.report.engines)

    def called(self, name: str) -> Node:
        """Return it under another name; the same object each time."""
        if name == self.name:
            return self
        renamed = self._last_name
        if renamed is None or renamed.name != name:
            renamed = replace(self, name=name)
            object.__setattr__(self, "_last_name", renamed)
        return renamed


@dataclass(frozen=True)
class Fleet:
    """All addresses, by key, in the order in which they were first seen."""

    addresses: Mapping[str, NodeAddress] = field(default_factory=dict[str, NodeAddress])

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes that have answered and are not forgotten."""
        by_id: dict[str, list[NodeAddress]] = {}
        for address in self.addresses.values():
            if address.node is not None:
                by_id.setdefault(address.node.id, []).append(address)
        return with_unique_names(
            [node for id_, heard in by_id.items() for node in _nodes(id_, heard)]
        )

    @cached_property
    def by_id(self) -> Mapping[str, Node]:
        """The nodes by their ids."""
        return {each.id: each for each in self.nodes}

    def discovered(
        self,
        key: str,
        source: str,
        origins: tuple[Origin, ...],
        expected: str | None,
        name: str = "",
    ) -> Fleet:
        """Note that a node was seen, perhaps again or at other origins."""
        known = self.addresses.get(key)
        if known is None:
            address = NodeAddress(
                key=key, source=source, origins=origins, expected=expected, name=name
            )
            return self._with(address)
        seen = replace(known, origins=origins, expected=expected, announced=True)
        return self if seen == known else self._with(seen)

    def withdrawn(self, key: str, now: float) -> Fleet:
        """Note that its announcement has ended; it may still answer."""
        address = self.addresses.get(key)
        if address is None or not address.announced:
            return self
        return self._with(replace(address, announced=False, since=now))

    def reported(self, key: str, origin: Origin, report: NodeReport) -> Fleet:
        """Take in a full report."""
        if (address := self.addresses.get(key)) is None:
            return self
        last = address.last_report
        report = awoken(last.report if last else None, report)
        return self._with(_up(address, LastReport(origin, report)))

    def engine_changed(self, key: str, engine: EngineReport) -> Fleet:
        """Take in that one engine of a node changed, or is new."""
        address = self.addresses.get(key)
        if address is None or address.last_report is None:
            return self
        old = address.last_report.report
        by_id = {each.id: each for each in old.engines} | {engine.id: engine}
        report = msgspec.structs.replace(old, engines=tuple(by_id.values()))
        return self._with(_up(address, LastReport(address.last_report.origin, report)))

    def rests(self, key: str, last_report: LastReport, unwoken: str = "") -> Fleet:
        """Note that a machine sleeps, by its last report; or why it is not woken."""
        address = self.addresses.get(key)
        if address is None or address.state == "up":
            return self
        resting = replace(
            address, state="unreachable", last_report=last_report, unwoken=unwoken
        )
        return self._with(resting)

    def heard(self, key: str) -> Fleet:
        """Take in a heartbeat: the node is up."""
        address = self.addresses.get(key)
        if address is None or address.last_report is None:
            return self
        if address.state == "up" and not address.full:
            return self
        return self._with(_up(address, address.last_report))

    def suspected(self, key: str, why: str, now: float) -> Fleet:
        """Note that the stream broke or stopped."""
        address = self.addresses.get(key)
        if address is None or address.state != "up":
            return self
        return self._with(replace(address, state="suspect", problem=why, since=now))

    def missed(self, key: str, why: str, now: float) -> Fleet:
        """Note that no origin of an address answers."""
        address = self.addresses.get(key)
        if address is None:
            return self
        since = address.since if address.state == "unreachable" else now
        lost = replace(address, state="unreachable", problem=why, since=since)
        return self if lost == address else self._with(lost)

    def failed(self, node: str, why: str, now: float) -> Fleet:
        """Note that a request did not reach a node: suspect until its next event."""
        fleet = self
        if found := self.node(node):
            for key in found.addresses:
                last_report = fleet.addresses[key].last_report
                if last_report and last_report.origin == found.origin:
                    fleet = fleet.suspected(key, why, now)
        return fleet

    def turned_away(self, node: str, engine: str) -> Fleet:
        """Note that an engine had no free slot: full until the node's next event."""
        found = self.node(node)
        fleet = self
        for key in found.addresses if found else ():
            address = fleet.addresses[key]
            fleet = fleet._with(replace(address, full=address.full | {engine}))
        return fleet

    def forgotten(self, key: str) -> Fleet:
        """Remove an address."""
        return Fleet({k: address for k, address in self.addresses.items() if k != key})

    def forgettable(self, key: str, now: float, after: float) -> bool:
        """Whether it has been unannounced and lost, not asleep, for `after` seconds."""
        address = self.addresses.get(key)
        if (
            address is None
            or address.announced
            or address.asleep
            or address.state in {"up", "suspect"}
        ):
            return False
        return now - address.since >= after

    def node(self, id_: str) -> Node | None:
        """Find a node by id."""
        return self.by_id.get(id_)

    def _with(self, address: NodeAddress) -> Fleet:
        return Fleet({**self.addresses, address.key: address})


@dataclass(frozen=True)
class _Reported:
    """An address whose node has reported."""

    address: NodeAddress
    last_report: LastReport


def _up(address: NodeAddress, last_report: LastReport) -> NodeAddress:
    up = replace(address, state="up", problem=None, unwoken="")
    return replace(up, full=frozenset(), last_report=last_report)


def _nodes(id_: str, addresses: Sequence[NodeAddress]) -> list[Node]:
    """Return one node, or one per process where several use the same id now."""
    if len(addresses) == 1 and addresses[0].node is not None:
        return [addresses[0].node]
    heard = [
        _Reported(each, each.last_report) for each in addresses if each.last_report
    ]
    up = [reported for reported in heard if reported.address.state == "up"]
    if not up:
        return [_node(id_, heard, max(heard, key=_trust))]
    processes: dict[str, list[_Reported]] = {}
    for reported in up:
        processes.setdefault(reported.last_report.report.instance, []).append(reported)
    if len(processes) == 1:
        return [_node(id_, heard, up[0])]
    first, *others = processes.values()
    return [_clone(id_, id_, first), *(_clone(id_, _apart(id_, v), v) for v in others)]


def _trust(reported: _Reported) -> tuple[bool, float]:
    return reported.address.state == "suspect", reported.address.since


def _apart(id_: str, reporteds: Sequence[_Reported]) -> str:
    return f"{id_}@{reporteds[0].last_report.origin.url.partition('://')[2]}"


def _node(id_: str, reporteds: Sequence[_Reported], best: _Reported) -> Node:
    return Node(
        id=id_,
        name=best.last_report.report.name,
        report=best.last_report.report,
        origin=best.last_report.origin,
        state=_state(best),
        addresses=tuple(reported.address.key for reported in reporteds),
        full=best.address.full,
        problem=_problem(best.address),
    )


def _problem(address: NodeAddress) -> str | None:
    return (address.unwoken or None) if address.asleep else address.problem


def _state(reported: _Reported) -> NodeState:
    if reported.address.asleep:
        return "asleep"
    if reported.address.state == "up":
        return reported.last_report.report.state
    return "suspect" if reported.address.state == "suspect" else "unreachable"


def _clone(shared: str, own: str, reporteds: Sequence[_Reported]) -> Node:
    return replace(
        _node(own, reporteds, reporteds[0]),
        problem=f"several machines say they are node {shared}: was a disk cloned?"
        " Remove the identity from the state folder of one and restart it",
    )
