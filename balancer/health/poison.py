"""Poisonous requests: engines died at them, so that no third engine gets them. Pure.

A retry carries a request that has ended one engine to the next. A death counts against
a request if:

- the engine died before the first text of the answer, or while it ran nothing else of
  ours: an engine that dies amid many answers proves nothing against any of them;
- its node reports that it died, not that something else ended it (`kill -9`, a stop);
- two engines died that way, one after the other. A suspect request, at which one has
  died, gets its next engine with no other suspect beside it until its first text: so
  the others that ran there are answered, and cleared.

Requests are remembered by hash, because clients ask again. Each balancer learns alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Literal

from balancer.fleet.engines import EngineCandidate, EngineIncarnation

ENOUGH = 2
"""Engines that may die at one request."""

SECONDS = 600.0
"""How long such a request is refused without an attempt."""

MOST = 1024
"""Most requests remembered of each kind."""

ProcessState = Literal["unknown", "alive", "died", "killed"]
"""`killed`: ended from outside; `unknown`: no node reports it, or not any more."""


@dataclass(frozen=True, slots=True)
class Death:
    """An engine died, or hung, at a request; `state` once its node reports it."""

    incarnation: EngineIncarnation
    hung: bool = False
    state: ProcessState = "unknown"

    def updated(self, engines: Sequence[EngineCandidate]) -> Death:
        """Return the same with what is known now; nodes soon forget."""
        if self.state in {"died", "killed"}:
            return self
        return replace(self, state=state_of(self.incarnation, engines))

    @property
    def proves(self) -> bool:
        """Whether it counts against the request."""
        return self.state == "died" or (self.hung and self.state == "alive")


def digest(path: str, body: bytes, key: bytes) -> bytes:
    """Return the hash that names a request in this process."""
    return blake2b(path.encode() + b"\0" + body, digest_size=16, key=key).digest()


@dataclass(slots=True)
class Poison:
    """Requests at which engines died. `deaths`: of those not answered since."""

    deaths: OrderedDict[bytes, list[Death]] = field(
        default_factory=OrderedDict[bytes, list[Death]]
    )
    refused: OrderedDict[bytes, float] = field(
        default_factory=OrderedDict[bytes, float]
    )

    @property
    def empty(self) -> bool:
        """Whether nothing is remembered, as mostly."""
        return not (self.deaths or self.refused)

    def note(self, name: bytes, death: Death) -> None:
        """Remember a death."""
        found = self.deaths.setdefault(name, [])
        if all(each.incarnation != death.incarnation for each in found):
            found.append(death)
            del found[: -2 * ENOUGH]
        _bounded(self.deaths, name)

    def deaths_at(self, name: bytes, engines: Sequence[EngineCandidate]) -> list[Death]:
        """Return the deaths at a request, with what nodes report of them now."""
        found = self.deaths.get(name)
        if found:
            found[:] = [each.updated(engines) for each in found]
        return found or []

    def proved(
        self, name: bytes, engines: Sequence[EngineCandidate], now: float
    ) -> bool:
        """Whether enough engines died at a request; from then on it is refused."""
        if sum(each.proves for each in self.deaths_at(name, engines)) < ENOUGH:
            return False
        del self.deaths[name]
        self.refused[name] = now + SECONDS
        _bounded(self.refused, name)
        return True

    def refuses(self, name: bytes, now: float) -> bool:
        """Whether a request is refused without an attempt."""
        until = self.refused.get(name)
        if until is not None and now >= until:
            del self.refused[name]
            return False
        return until is not None

    def forget(self, name: bytes) -> None:
        """Forget the deaths at a request: an engine has answered it."""
        self.deaths.pop(name, None)


def _bounded(
    memory: OrderedDict[bytes, list[Death]] | OrderedDict[bytes, float], name: bytes
) -> None:
    memory.move_to_end(name)
    if len(memory) > MOST:
        memory.popitem(last=False)


def state_of(
    incarnation: EngineIncarnation, engines: Sequence[EngineCandidate]
) -> ProcessState:
    """Say what became of an engine's process."""
    for each in engines:
        if each.incarnation[:-1] == incarnation[:-1]:
            return _state(incarnation[-1], each)
    return "unknown"


def _state(epoch: int, now: EngineCandidate) -> ProcessState:
    engine = now.engine
    over = engine.state in {"failed", "stuck", "quarantined"}
    if engine.epoch == epoch and not over:
        return "alive"
    reported = engine.epoch == epoch or (engine.epoch == epoch + 1 and not over)
    return engine.ended or "unknown" if reported else "unknown"
