"""Memory of the machines in virtual time: which engines are loaded, load or leave.

It follows the rules of a node: an engine that loads holds its memory from the start;
one that leaves finishes its requests first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from balancer.simulate.loading.fleets import HostFleet
from balancer.simulate.world import Act, Empty, Wake

State = Literal["absent", "waiting", "loading", "ready", "leaving"]
"""`waiting`: it will load once others have left."""


@dataclass(slots=True)
class HeldEngine:
    """What one engine does now. `since`: since when it is in its state."""

    state: State = "absent"
    since: float = 0.0
    ready_at: float = 0.0
    running: int = 0
    used: float = 0.0


class HostMemory:
    """The engines of a fleet; counts loads and evictions."""

    def __init__(self, fleet: HostFleet) -> None:
        self.fleet = fleet
        self.engines = [HeldEngine() for _ in fleet.engines]
        self.loads = 0
        self.evictions = 0
        self.unloads = 0

    def on(self, host: str, *states: State) -> list[int]:
        """Return the engines of a machine that are in one of these states."""
        return [
            i
            for i, each in enumerate(self.engines)
            if self.fleet.engines[i].host == host and each.state in states
        ]

    def of(self, model: str, *states: State) -> list[int]:
        """Return the engines of a model that are in one of these states."""
        return [i for i in self.fleet.of(model) if self.engines[i].state in states]

    def free(self, host: str) -> float:
        """GiB that no engine holds."""
        held = self.on(host, "loading", "ready", "leaving")
        return self.fleet.memory[host] - sum(self.fleet.engines[i].memory for i in held)

    def evicts(self, engine: int) -> list[int] | None:
        """Return which engines would leave: the idle ones first, longest unused first.

        None where what loads now is in the way.
        """
        hosted = self.fleet.engines[engine]
        lacks = hosted.memory - self.free(hosted.host)
        leaving = self.on(hosted.host, "leaving")
        lacks -= sum(self.fleet.engines[i].memory for i in leaving)
        lacks += sum(
            self.fleet.engines[i].memory for i in self.on(hosted.host, "waiting")
        )
        found = list[int]()
        ready = self.on(hosted.host, "ready")
        ready.sort(key=lambda i: (self.engines[i].running > 0, self.engines[i].used))
        for each in ready:
            if lacks <= 0:
                break
            found.append(each)
            lacks -= self.fleet.engines[each].memory
        return None if lacks > 0 else found

    def load(self, engine: int, evicts: Iterable[int], now: float) -> list[Act]:
        """Load an engine once others have left."""
        acts = list[Act]()
        for each in evicts:
            self.evictions += 1
            acts += self.unload(each, now)
        self._become(engine, "waiting", now)
        return acts + self.advance(now)

    def unload(self, engine: int, now: float) -> list[Act]:
        """Let an engine finish its requests and leave."""
        self._become(engine, "leaving", now)
        return self._leave(engine, now)

    def _leave(self, engine: int, now: float) -> list[Act]:
        if self.engines[engine].running:
            return []
        self._become(engine, "absent", now)
        return [Empty(engine)]

    def _become(self, engine: int, state: State, now: float) -> None:
        self.engines[engine].state, self.engines[engine].since = state, now

    def start(self, engine: int, now: float) -> None:
        """Count a request that starts."""
        self.engines[engine].running += 1
        self.engines[engine].used = now

    def end(self, engine: int, now: float) -> list[Act]:
        """Count a request that ends."""
        held = self.engines[engine]
        held.running, held.used = held.running - 1, now
        return self._leave(engine, now) if held.state == "leaving" else []

    def advance(self, now: float) -> list[Act]:
        """End the loads that are over; begin those that have room by now."""
        acts = list[Act]()
        for i, each in enumerate(self.engines):
            if each.state == "loading" and each.ready_at <= now + 1e-9:
                self._become(i, "ready", now)
                each.used = now
        waiting = [i for i, each in enumerate(self.engines) if each.state == "waiting"]
        for i in sorted(waiting, key=lambda i: self.engines[i].since):
            hosted, held = self.fleet.engines[i], self.engines[i]
            if hosted.memory <= self.free(hosted.host):
                self.loads += 1
                self._become(i, "loading", now)
                held.ready_at = now + hosted.load_seconds
                acts.append(Wake(held.ready_at))
        return acts
