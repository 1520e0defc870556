"""Slot counts: slots taken on each engine, by us and by others. Pure.

A node's report includes our requests and comes a little late. What it counts beyond the
slots that we hold at that moment belongs to others; it is added to ours until the next
report. So a slot is free as soon as our request ends.

It is not where the client has left: the engine works on until it notices. Such a slot
stays taken until a report counts less, or no report has come for a while.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from balancer.fleet.engines import EngineCandidate, EngineKey
from edgeserve.wire import EngineReport

NONE: Mapping[EngineKey, int] = {}


class SlotCounts:
    """Counts of taken slots, by engine."""

    def __init__(self) -> None:
        self._ours: Counter[EngineKey] = Counter()
        self._left: Counter[EngineKey] = Counter()
        self._fresh: Counter[EngineKey] = Counter()
        """Slots taken since the last report, which may not have counted them."""
        self._others: dict[EngineKey, int] = {}
        self._seen: dict[EngineKey, EngineReport] = {}
        self._reserved = NONE

    def busy(self, key: EngineKey) -> int:
        """Count the slots that are taken on an engine."""
        taken = self._ours[key] + self._left[key] + self._others.get(key, 0)
        return taken + self._reserved.get(key, 0)

    def ours(self, key: EngineKey) -> int:
        """Count the slots that we hold on an engine."""
        return self._ours[key]

    def take(self, key: EngineKey, slots: int) -> None:
        """Count slots as ours."""
        self._ours[key] += slots
        self._fresh[key] += slots

    def give_back(self, key: EngineKey, slots: int, *, left: bool = False) -> None:
        """Stop counting them as ours; `left`: the engine may still be at work."""
        self._ours[key] -= slots
        if self._ours[key] <= 0:
            del self._ours[key]
        if left and key in self._seen:
            self._left[key] += slots

    def left(self, key: EngineKey) -> int:
        """Count the slots whose clients have left and that are not free yet."""
        return self._left[key]

    def settle(self, key: EngineKey) -> None:
        """Trust the last report: there was time for another one."""
        self._fresh[key] = 0
        if key in self._seen:
            self._note(key, self._seen[key])

    def update(
        self,
        candidates: Iterable[EngineCandidate],
        reserved: Mapping[EngineKey, int] = NONE,
    ) -> None:
        """Take in what the nodes report; an unchanged report counts once.

        `reserved` slots are not to be taken for now.
        """
        self._reserved = reserved
        seen, self._seen = self._seen, {}
        for each in candidates:
            self._seen[each.key] = each.engine
            before = seen.get(each.key)
            if before is not each.engine:
                if before is None or before.epoch != each.engine.epoch:
                    del self._left[each.key]
                self._note(each.key, each.engine)
        for gone in seen.keys() - self._seen.keys():
            del self._others[gone], self._left[gone], self._fresh[gone]

    def _note(self, key: EngineKey, engine: EngineReport) -> None:
        beyond = engine.busy - self._ours[key]
        self._left[key] = min(self._left[key], max(beyond + self._fresh[key], 0))
        self._others[key] = max(beyond - self._left[key], 0)
        self._fresh[key] = 0
