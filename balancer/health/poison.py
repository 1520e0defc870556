"""Poisonous requests: engines died at them, so that no third engine gets them. Pure.

A retry carries what has ended one engine to the next. What is held against a request:

- an engine died before it had said a word of the answer, or while this was all that it
  was asked: what ends in the midst of many answers is none of them to blame for;
- its node says that it died, and not that somebody else ended it (`kill -9`, a stop);
- two engines went that way, one after the other. A request that had one die under it is
  sent to the next with no other such request beside it, until it has its first word:
  so the neighbours of the guilty one are answered there, and cleared.

Remembered by hash, for clients ask again; every balancer has to learn it by itself.
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
"""How long such a request is refused unseen."""

MOST = 1024
"""Requests that are remembered of each kind."""

Fate = Literal["unknown", "alive", "died", "killed"]
"""`killed` by somebody else; `unknown` where no node tells, or tells any more."""


@dataclass(frozen=True, slots=True)
class Death:
    """A request had an engine die, or hang, at it; `fate` once its node has told it."""

    life: EngineIncarnation
    hung: bool = False
    fate: Fate = "unknown"

    def told(self, engines: Sequence[EngineCandidate]) -> Death:
        """Return the same with what is known now; nodes soon forget."""
        if self.fate in {"died", "killed"}:
            return self
        return replace(self, fate=fate_of(self.life, engines))

    @property
    def proves(self) -> bool:
        """Whether it speaks against the request."""
        return self.fate == "died" or (self.hung and self.fate == "alive")


def digest(path: str, body: bytes, key: bytes) -> bytes:
    """Name a request, for this process."""
    return blake2b(path.encode() + b"\0" + body, digest_size=16, key=key).digest()


@dataclass(slots=True)
class Poison:
    """What is remembered. `deaths` are held against requests not answered since."""

    deaths: OrderedDict[bytes, list[Death]] = field(
        default_factory=OrderedDict[bytes, list[Death]]
    )
    refused: OrderedDict[bytes, float] = field(
        default_factory=OrderedDict[bytes, float]
    )

    @property
    def knows(self) -> bool:
        """Whether anything is remembered at all; mostly not."""
        return bool(self.deaths or self.refused)

    def note(self, name: bytes, death: Death) -> None:
        """Remember a death."""
        found = self.deaths.setdefault(name, [])
        if all(each.life != death.life for each in found):
            found.append(death)
            del found[: -2 * ENOUGH]
        _bounded(self.deaths, name)

    def told(self, name: bytes, engines: Sequence[EngineCandidate]) -> list[Death]:
        """Take in what nodes say of the deaths at a request."""
        found = self.deaths.get(name)
        if found:
            found[:] = [each.told(engines) for each in found]
        return found or []

    def judged(
        self, name: bytes, engines: Sequence[EngineCandidate], now: float
    ) -> bool:
        """Whether it is proved by now; from then on it is refused."""
        if sum(each.proves for each in self.told(name, engines)) < ENOUGH:
            return False
        del self.deaths[name]
        self.refused[name] = now + SECONDS
        _bounded(self.refused, name)
        return True

    def refuses(self, name: bytes, now: float) -> bool:
        """Whether a request is to be refused unseen."""
        until = self.refused.get(name)
        if until is not None and now >= until:
            del self.refused[name]
            return False
        return until is not None

    def answered(self, name: bytes) -> None:
        """Forget what was held against a request: it was answered."""
        self.deaths.pop(name, None)


def _bounded(
    memory: OrderedDict[bytes, list[Death]] | OrderedDict[bytes, float], name: bytes
) -> None:
    memory.move_to_end(name)
    if len(memory) > MOST:
        memory.popitem(last=False)


def fate_of(life: EngineIncarnation, engines: Sequence[EngineCandidate]) -> Fate:
    """Say what has become of an engine's process."""
    for each in engines:
        if each.life[:-1] == life[:-1]:
            return _fate(life[-1], each)
    return "unknown"


def _fate(epoch: int, now: EngineCandidate) -> Fate:
    engine = now.engine
    over = engine.state in {"failed", "stuck", "quarantined"}
    if engine.epoch == epoch and not over:
        return "alive"
    told = engine.epoch == epoch or (engine.epoch == epoch + 1 and not over)
    return engine.ended or "unknown" if told else "unknown"
