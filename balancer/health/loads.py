"""Load faults: engines that could not be loaded a moment ago.

A load that failed may fail again, and takes the node's disk and memory meanwhile. So
each failure doubles the time for which the engine is not asked for. Requests that no
other engine could serve are refused with the reason rather than left to wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from balancer.fleet.engines import EngineCandidate, EngineKey

FIRST_SECONDS, MOST_SECONDS = 10.0, 300.0
"""Seconds for which an engine that did not load is left alone: 10, 20, 40, … 300. A
node that knows better says so: the engine's state then is no longer `failed`."""


BROKEN = frozenset(("absent", "failed"))
"""What a node says of an engine whose load has failed."""


@dataclass(frozen=True, slots=True)
class LoadFault:
    """The latest failure of an engine's loads: why, how many in a row, until when.

    `created` is the time of its file: another file has not failed yet.
    """

    why: str
    count: int
    until: float
    created: int = 0


class LoadFaults:
    """The load faults of all engines. `changed` is called when they change."""

    def __init__(
        self, changed: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._changed = changed
        self._clock = clock
        self._faults: dict[EngineKey, LoadFault] = {}
        self._judged = frozenset[EngineKey]()

    def judged(
        self, candidates: Sequence[EngineCandidate]
    ) -> tuple[EngineCandidate, ...]:
        """Mark the absent engines that did not load a moment ago."""
        self._judged = self._lasting() if self._faults else frozenset()
        if not self._judged:
            return tuple(candidates)
        return tuple(map(self._marked, candidates))

    def failed(self, key: EngineKey, why: str, created: int = 0) -> None:
        """Note that an engine did not load its file, which was `created` then."""
        before = self._faults.get(key)
        count = before.count + 1 if before and before.created == created else 1
        pause = min(FIRST_SECONDS * 2.0 ** min(count - 1, 10), MOST_SECONDS)
        self._faults[key] = LoadFault(why, count, self._clock() + pause, created)
        self._changed()

    def over(self, key: EngineKey) -> None:
        """Note that its node would try again; the count of failures remains."""
        if (fault := self._faults.get(key)) is not None:
            self._faults[key] = replace(fault, until=self._clock())
            self.tick()

    def loaded(self, key: EngineKey) -> None:
        """Note that it did load."""
        if self._faults.pop(key, None) is not None:
            self._changed()

    def tick(self) -> None:
        """Let time pass: faults end by themselves."""
        if self._faults and self._lasting() != self._judged:
            self._changed()

    def _lasting(self) -> frozenset[EngineKey]:
        now = self._clock()
        return frozenset(key for key, each in self._faults.items() if each.until > now)

    def _marked(self, each: EngineCandidate) -> EngineCandidate:
        if each.key not in self._judged or each.engine.state not in BROKEN:
            return each
        fault = self._faults[each.key]
        if fault.created != each.engine.created:
            return each
        why = f"not loaded here: {fault.why}"
        return replace(each, unavailable=why, temporary=False)
