"""Slot counts: slots taken on each engine, by us and by others. Pure.

A node's report includes our requests and comes a little late. What it counts beyond the
slots that we hold at that moment belongs to others; it is added to ours until the next
report. So a slot is free as soon as our request ends.

It is not where the client has left: the engine works on until it notices. Such a slot
stays taken until a report counts less, or no report has come for a while.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from balancer.fleet.engines import Difference, EngineCandidate, EngineKey
from edgeserve.wire import EngineReport

NONE: Mapping[EngineKey, int] = {}


@dataclass(slots=True)
class TakenSlots:
    """The taken slots of one engine, by who has them; `report` is its latest.

    `ours` are held by requests and probes of this balancer. `left` were, by clients
    that have left, and are not free yet. `reserved` are not to be taken for now.
    `fresh` of ours were taken since the report, which may not have counted them.
    """

    ours: int = 0
    left: int = 0
    others: int = 0
    reserved: int = 0
    fresh: int = 0
    report: EngineReport | None = None

    @property
    def busy(self) -> int:
        """How many are taken in all."""
        return self.ours + self.left + self.others + self.reserved

    def note(self, report: EngineReport) -> None:
        """Take in a report."""
        self.report = report
        beyond = report.busy - self.ours
        self.left = min(self.left, max(beyond + self.fresh, 0))
        self.others = max(beyond - self.left, 0)
        self.fresh = 0


class SlotCounts:
    """The taken slots of all engines."""

    def __init__(self) -> None:
        self._taken: dict[EngineKey, TakenSlots] = {}
        self._candidates: tuple[EngineCandidate, ...] = ()
        self._reserved: Mapping[EngineKey, int] = NONE
        self.adjusted = set[EngineKey]()
        """Engines whose reserved slots changed; who follows the counts empties it.

        An engine that recovers says nothing. One that seems full gets no request, and
        so would say nothing for ever.
        """

    def of(self, key: EngineKey) -> TakenSlots:
        """Return what is taken on an engine, to be read."""
        return self._taken.get(key) or TakenSlots()

    def busy(self, key: EngineKey) -> int:
        """Count the slots that are taken on an engine."""
        return self.of(key).busy

    def ours(self, node_id: str) -> Mapping[str, int]:
        """Count the slots that are ours on each engine of a node or server."""
        return {
            key[1]: taken.ours
            for key, taken in self._taken.items()
            if key[0] == node_id and taken.ours
        }

    def take(self, key: EngineKey, slots: int) -> None:
        """Count slots as ours."""
        if (taken := self._taken.get(key)) is None:
            taken = self._taken[key] = TakenSlots()
        taken.ours += slots
        taken.fresh += slots

    def give_back(self, key: EngineKey, slots: int, *, left: bool = False) -> None:
        """Stop counting them as ours; `left`: the engine may still be at work."""
        if (taken := self._taken.get(key)) is None:
            return  # it left, and what is given back was work that needs no slot
        taken.ours -= slots
        if taken.report is None:
            self._drop(key, taken)
        elif left:
            taken.left += slots

    def settle(self, key: EngineKey) -> None:
        """Trust the last report: there was time for another one."""
        taken = self.of(key)
        taken.fresh = 0
        if taken.report is not None:
            taken.note(taken.report)

    def update(
        self,
        candidates: Iterable[EngineCandidate],
        reserved: Mapping[EngineKey, int] = NONE,
    ) -> None:
        """Take in what the nodes report; an unchanged report counts once.

        An absent engine has no slots.
        """
        before, self._candidates = self._candidates, tuple(candidates)
        found = Difference.of(before, self._candidates)
        for each in found.changed:
            if each.engine.state == "absent":
                self._gone(each.key)
            else:
                self._reported(each)
        for key in found.gone:
            self._gone(key)
        for key in {*self._reserved, *reserved}:
            taken, slots = self._taken.get(key), reserved.get(key, 0)
            if taken is not None and taken.reserved != slots:
                taken.reserved = slots
                self.adjusted.add(key)
        self._reserved = reserved

    def _reported(self, each: EngineCandidate) -> None:
        taken = self._taken.setdefault(each.key, TakenSlots())
        before = taken.report
        if before is not each.engine:
            if before is None or before.epoch != each.engine.epoch:
                taken.left = 0
            taken.note(each.engine)

    def _gone(self, key: EngineKey) -> None:
        if (taken := self._taken.get(key)) is not None:
            self._drop(key, taken)

    def _drop(self, key: EngineKey, taken: TakenSlots) -> None:
        """Forget an engine that left, but for the slots that requests still hold."""
        if taken.ours > 0:
            self._taken[key] = TakenSlots(ours=taken.ours)
        else:
            del self._taken[key]
