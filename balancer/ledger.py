"""How many slots are taken on each engine, by us and by others. Pure bookkeeping.

A node's report counts our requests too and comes a little late. What it counts beyond
the slots that we hold when it comes is others' work; that much is added to ours until
its next report. So a slot is free in the moment in which our request ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from balancer.candidates import Candidate, EngineKey
from edgeserve.wire import EngineReport

NONE: Mapping[EngineKey, int] = {}


class Ledger:
    """Slots by engine."""

    def __init__(self) -> None:
        self._ours: Counter[EngineKey] = Counter()
        self._others: dict[EngineKey, int] = {}
        self._seen: dict[EngineKey, EngineReport] = {}
        self._reserved = NONE

    def busy(self, key: EngineKey) -> int:
        """Count the slots that are taken on an engine."""
        taken = self._ours[key] + self._others.get(key, 0)
        return taken + self._reserved.get(key, 0)

    def ours(self, key: EngineKey) -> int:
        """Count the slots that we hold on an engine."""
        return self._ours[key]

    def take(self, key: EngineKey, slots: int) -> None:
        """Count slots as ours."""
        self._ours[key] += slots

    def give_back(self, key: EngineKey, slots: int) -> None:
        """Count them as ours no longer."""
        self._ours[key] -= slots
        if self._ours[key] <= 0:
            del self._ours[key]

    def told(
        self,
        candidates: Iterable[Candidate],
        reserved: Mapping[EngineKey, int] = NONE,
    ) -> None:
        """Take in what the nodes report; what has not changed says nothing new.

        `reserved` slots nobody may take for now.
        """
        self._reserved = reserved
        seen, self._seen = self._seen, {}
        for each in candidates:
            self._seen[each.key] = each.engine
            if seen.get(each.key) is not each.engine:
                beyond = each.engine.busy - self._ours[each.key]
                self._others[each.key] = max(beyond, 0)
        for gone in seen.keys() - self._seen.keys():
            del self._others[gone]
