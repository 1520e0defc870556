"""Live fleet: the current membership, and the listeners to its changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from balancer.fleet.changes import Changes
from balancer.fleet.engines import Candidates, EngineCandidate
from balancer.fleet.members import Fleet, Node


def news(before: Fleet, after: Fleet) -> list[str]:
    """Compare two fleets: nodes that joined or left, engines that are ready, faults."""
    old, new = before.by_id, after.by_id
    changed = [each for each in after.nodes if old.get(each.id) is not each]
    lines = [line for each in changed for line in _node_news(old.get(each.id), each)]
    if any(each.name != each.report.name for each in changed):
        lines += _namesakes(before, after)
    gone = [old[id_] for id_ in old.keys() - new.keys()]
    lines += [f"{each.name} left" for each in gone if _here(each)]
    return lines + _unusable(before, after)


def _namesakes(before: Fleet, after: Fleet) -> list[str]:
    """Say once how nodes that share a name are called here."""
    known = {each.name for each in before.nodes}
    shared: dict[str, list[str]] = {}
    for each in after.nodes:
        if each.name != each.report.name:
            shared.setdefault(each.report.name, []).append(each.name)
    return [
        f"several nodes call themselves {name}; here they are {' and '.join(shown)}."
        " `--name` gives a node another name"
        for name, shown in shared.items()
        if not known.issuperset(shown)
    ]


def _unusable(before: Fleet, after: Fleet) -> list[str]:
    """Say why an address cannot be followed: once, until the reason changes."""
    return [
        f"{address.key} cannot be used: {address.problem}"
        for address in after.addresses.values()
        if address.last_report is None
        and address.problem
        and address.problem != _problem(before, address.key)
    ]


def _problem(fleet: Fleet, key: str) -> str | None:
    address = fleet.addresses.get(key)
    return address.problem if address else None


def _node_news(old: Node | None, new: Node) -> list[str]:
    was_here = old is not None and _here(old)
    if _here(new) and not was_here:
        return [_joined(new)]
    if was_here and not _here(new):
        return [f"{new.name} left: {new.problem}"]
    if old is None:
        return []
    if "asleep" in {old.state, new.state}:
        return _slept(old, new)
    if old.state == "up" and new.state == "draining":
        return [f"{new.name} is shutting down"]
    return _ready(old, new) + _trouble(old, new)


def _slept(old: Node, new: Node) -> list[str]:
    if old.state == new.state:
        changed = new.problem and new.problem != old.problem
        return [f"{new.name}: {new.problem}"] if changed else []
    if new.state == "asleep":
        return [f"{new.name} sleeps"]
    return [f"{new.name} is awake"]


def _here(node: Node) -> bool:
    """Whether it is in the fleet; a suspect node has not left."""
    return node.state != "unreachable"


def _joined(node: Node) -> str:
    slots = sum(each.slots for each in node.report.engines if _serves(each.state))
    trouble = f"; {node.problem}" if node.problem else ""
    return f"{node.name} joined ({_counted(slots)}){trouble}"


def _counted(slots: int) -> str:
    if slots == 0:
        return "no engine is ready yet"
    return "1 slot" if slots == 1 else f"{slots} slots"


def _ready(old: Node, new: Node) -> list[str]:
    served = {each.id for each in old.report.engines if _serves(each.state)}
    return [
        f"{new.name} serves {each.variant} ({_counted(each.slots)})"
        for each in new.report.engines
        if _serves(each.state) and each.id not in served
    ]


def _trouble(old: Node, new: Node) -> list[str]:
    if new.state == "up" and new.problem and new.problem != old.problem:
        return [f"{new.name}: {new.problem}"]
    return []


def _serves(state: str) -> bool:
    return state in {"ready", "busy"}


Say = Callable[[str], None]
Judge = Callable[[Sequence[EngineCandidate]], tuple[EngineCandidate, ...]]
Grouped = Callable[[Fleet, tuple[EngineCandidate, ...]], tuple[EngineCandidate, ...]]


def _as_reported(
    _: Fleet, candidates: tuple[EngineCandidate, ...]
) -> tuple[EngineCandidate, ...]:
    return candidates


class LiveFleet:
    """Holds the latest `Fleet`. `say` prints which nodes join and leave.

    `judge` adds to the candidates what circuit breakers know about them; `grouped`
    adds engines of several nodes, which no node reports before they are formed.
    """

    def __init__(
        self, say: Say, judge: Judge = tuple, grouped: Grouped = _as_reported
    ) -> None:
        self.say = say
        self._judge = judge
        self._grouped = grouped
        self._all = Candidates()
        self._changes = Changes()
        self._waiting: list[asyncio.Future[None]] = []
        self.fleet = Fleet()
        self.candidates: tuple[EngineCandidate, ...] = ()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every change, from the event loop."""
        self._changes.subscribe(listener)

    async def changed(self) -> None:
        """Wait for the next change."""
        change = asyncio.get_running_loop().create_future()
        self._waiting.append(change)
        await change

    def become(self, fleet: Fleet) -> None:
        """Replace the fleet; does nothing if it is the same."""
        if fleet is self.fleet:
            return
        before, self.fleet = self.fleet, fleet
        for line in news(before, fleet):
            self.say(line)
        self.judge()

    def judge(self) -> None:
        """Judge the candidates again, and notify the listeners."""
        found = self._grouped(self.fleet, self._all.of(self.fleet))
        self.candidates = self._judge(found)
        self._changes.notify()
        waiting, self._waiting = self._waiting, []
        for change in waiting:
            if not change.done():
                change.set_result(None)
