"""Event loop in virtual time: requests arrive, a policy decides, engines answer."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Protocol

from balancer.simulate.cache import SlotContent
from balancer.simulate.engine import Engine, Event
from balancer.simulate.fleets import Machine
from balancer.telemetry.trace import Call


@dataclass(frozen=True, slots=True)
class Start:
    """Send a call to an engine; `slot` is set where the policy chooses it.

    `state` is a saved one that the slot gets first; `delay` is what that takes.
    """

    call: Call
    engine: int
    slot: int | None = None
    predicted: float | None = None
    state: bytes = b""
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Save:
    """Save what a slot of an engine holds."""

    engine: int
    slot: int
    state: bytes


@dataclass(frozen=True, slots=True)
class Decline:
    """Refuse a call."""

    call: Call


@dataclass(frozen=True, slots=True)
class Wake:
    """Ask the policy again at this time."""

    at: float


@dataclass(frozen=True, slots=True)
class Empty:
    """Forget what an engine has cached: it was unloaded."""

    engine: int


Act = Start | Save | Decline | Wake | Empty


class Policy(Protocol):
    """A load-balancing policy. It learns only what a balancer can observe."""

    def arrive(self, call: Call, now: float) -> Sequence[Act]:
        """Take in a request: start it now, or queue it."""
        ...

    def notice(self, event: Event, engine: int, now: float) -> Sequence[Act]:
        """Note what a client sees: began, progress, first token or end."""
        ...

    def wake(self, now: float) -> Sequence[Act]:
        """Look again, as a `Wake` has asked."""
        ...


@dataclass(slots=True)
class CallOutcome:
    """The outcome of one call; times are absolute, -1 where that never happened."""

    call: Call
    arrived: float
    engine: int = -1
    sent: float = -1.0
    started: float = -1.0
    first: float = -1.0
    ended: float = -1.0
    cached: int = 0
    predicted: float | None = None
    refused: bool = False


@dataclass(slots=True)
class World:
    """Engines, a policy, and the events to come."""

    engines: list[Engine]
    policy: Policy
    chance: random.Random
    outcomes: dict[int, CallOutcome] = field(default_factory=dict[int, CallOutcome])
    saved: dict[bytes, SlotContent] = field(default_factory=dict[bytes, SlotContent])
    _later: list[tuple[float, int, Call | None, int, int]] = field(
        default_factory=list[tuple[float, int, Call | None, int, int]]
    )
    _followers: dict[int, list[Call]] = field(default_factory=dict[int, list[Call]])
    _version: list[int] = field(default_factory=list[int])
    _count: int = 0

    def run(self, calls: Iterable[Call]) -> list[CallOutcome]:
        """Simulate a trace to its end."""
        self._version = [0] * len(self.engines)
        for call in calls:
            if call.after is None:
                self._push(call.at, call)
            else:
                self._followers.setdefault(call.after, []).append(call)
        while self._later:
            now, _, arrival, engine, version = heappop(self._later)
            if arrival is not None:
                self.outcomes[arrival.id] = CallOutcome(arrival, now)
                self._act(self.policy.arrive(arrival, now), now)
            elif engine < 0:
                self._act(self.policy.wake(now), now)
            elif version == self._version[engine]:
                self._happen(engine, now)
        return list(self.outcomes.values())

    def _push(
        self, at: float, call: Call | None, engine: int = -1, version: int = 0
    ) -> None:
        self._count += 1
        heappush(self._later, (at, self._count, call, engine, version))

    def _happen(self, engine: int, now: float) -> None:
        for event in self.engines[engine].happen(now):
            self._note(event, engine, now)
        self.foresee(engine)

    def _note(self, event: Event, engine: int, now: float) -> None:
        self._record(event, now)
        self._act(self.policy.notice(event, engine, now), now)

    def _record(self, event: Event, now: float) -> None:
        outcome = self.outcomes[event.run.call.id]
        match event.kind:
            case "began":
                outcome.started, outcome.cached = event.run.started, event.run.cached
            case "first":
                outcome.first = now
            case "progress":
                pass
            case _:
                outcome.ended = now
                for follower in self._followers.pop(event.run.call.id, ()):
                    self._push(now + follower.at, follower)

    def _act(self, acts: Sequence[Act], now: float) -> None:
        for act in acts:
            match act:
                case Start():
                    self._start(act, now)
                case Save(engine, slot, state):
                    content = self.engines[engine].cache.slots[slot].content
                    if content is not None:
                        self.saved[state] = content
                case Decline(call):
                    self.outcomes[call.id].refused = True
                case Wake(at):
                    self._push(at, None)
                case Empty(engine):
                    self.engines[engine].restart()

    def _start(self, act: Start, now: float) -> None:
        outcome = self.outcomes[act.call.id]
        outcome.sent, outcome.engine = now, act.engine
        outcome.predicted = act.predicted
        noise = self.chance.gauss(0, 1)
        engine = self.engines[act.engine]
        if act.slot is not None and (state := self.saved.get(act.state)) is not None:
            engine.cache.slots[act.slot].content = state
        engine.send(act.call, now, act.slot, noise, act.delay)
        self.foresee(act.engine)

    def foresee(self, engine: int) -> None:
        """Note when something happens next on an engine."""
        self._version[engine] += 1
        at = self.engines[engine].next()
        if at is not None:
            self._push(at, None, engine, self._version[engine])


def play(
    fleet: Sequence[Machine], calls: Iterable[Call], policy: Policy, seed: int = 1
) -> list[CallOutcome]:
    """Run one policy over one trace on one fleet; deterministic."""
    engines = [Engine(machine) for machine in fleet]
    chance = random.Random(seed)  # noqa: S311 - a simulation
    return World(engines, policy, chance).run(calls)
