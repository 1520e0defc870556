"""Cache moves: whether to bring what was read to an engine, or read it anew. Pure.

A state moves in three steps, each with a learned speed:

    seconds = save + size / link + restore       against        read anew

A step that is not needed costs nothing: what is saved already is not saved again, and
what lies on the engine's own node crosses no link. Reading anew also holds up whatever
else the engine does, and a move does not; so a move is chosen where it spares `MARGIN`
of the reading, and at least `LEAST` seconds.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import msgspec

MARGIN = 0.25
LEAST = 0.2

SAVE, LINK, RESTORE = 100e6, 10e6, 100e6
"""Bytes per second before anything was measured: of a slow disk, and 100 Mbit/s."""

STEP = 0.02
"""Seconds of a step beside its bytes: a request to a node, and to its engine."""

GAIN = 0.3

DISTRUST = 2
"""After so many moves in a row that spared nothing, a model's states are left alone."""


Place = tuple[str, str]
"""A node: its id, and its name."""


class CacheMove(msgspec.Struct, kw_only=True):
    """One move, as predicted and as it went. Seconds and bytes.

    `source` is the name of the node that has the state, `target` of the one whose
    engine gets it.
    `saves`: it has to be saved first. `read` is what reading anew would take.
    """

    source: str
    target: str
    tokens: float
    size: float
    saves: bool
    save: float
    link: float
    restore: float
    read: float
    why: str = ""
    seconds: float | None = None
    outcome: str | None = None

    @property
    def predicted(self) -> float:
        """How long the move takes."""
        return self.save + self.link + self.restore

    @property
    def gain(self) -> float:
        """Seconds that it spares."""
        return self.read - self.predicted

    @property
    def pays(self) -> bool:
        """Whether to move."""
        return self.gain >= max(LEAST, MARGIN * self.read)

    def shown(self) -> dict[str, Any]:
        """Render it for the explanation of a request."""
        return {
            "from": self.source,
            "to": self.target,
            "why": self.why,
            "tokens": round(self.tokens),
            "bytes": round(self.size),
            "predicted_seconds": round(self.predicted, 4),
            "save_seconds": round(self.save, 4),
            "link_seconds": round(self.link, 4),
            "restore_seconds": round(self.restore, 4),
            "read_anew_seconds": round(self.read, 4),
            "seconds": self.seconds and round(self.seconds, 4),
            "outcome": self.outcome,
        }


@dataclass(slots=True)
class StepSpeed:
    """Bytes per second of one step, from its latest measurements."""

    value: float
    measured: bool = False

    def learn(self, size: float, seconds: float) -> None:
        """Learn from one step."""
        now = size / max(seconds - STEP, 1e-3)
        self.value = (
            now if not self.measured else self.value + GAIN * (now - self.value)
        )
        self.measured = True

    def seconds(self, size: float) -> float:
        """Return how long a step with so many bytes takes."""
        return STEP + size / self.value


@dataclass(slots=True)
class MoveSpeeds:
    """What was learned of moves: speeds of nodes and links, and bytes for a token."""

    saves: dict[str, StepSpeed] = field(default_factory=dict[str, StepSpeed])
    restores: dict[str, StepSpeed] = field(default_factory=dict[str, StepSpeed])
    links: dict[tuple[str, str], StepSpeed] = field(
        default_factory=dict[tuple[str, str], StepSpeed]
    )
    per_token: dict[Hashable, float] = field(default_factory=dict[Hashable, float])
    spared_nothing: dict[Hashable, int] = field(default_factory=dict[Hashable, int])

    def save(self, node: str) -> StepSpeed:
        """Return the speed at which a node saves."""
        return self.saves.setdefault(node, StepSpeed(SAVE))

    def restore(self, node: str) -> StepSpeed:
        """Return the speed at which a node verifies and restores."""
        return self.restores.setdefault(node, StepSpeed(RESTORE))

    def link(self, source: str, target: str) -> StepSpeed:
        """Return the speed of the way between two nodes."""
        return self.links.setdefault((source, target), StepSpeed(LINK))

    def size(self, fit: Hashable, tokens: float, parameters: float) -> float:
        """Return the bytes of a state; guessed by billions of parameters at first."""
        guess = 16 * 1024 * (1 + parameters)
        return tokens * self.per_token.get(fit, guess)

    def trusted(self, fit: Hashable) -> bool:
        """Whether states of a model spare reading, as far as was seen."""
        return self.spared_nothing.get(fit, 0) < DISTRUST

    def judge(self, fit: Hashable, moved: float, found: float) -> None:
        """Note how many of the tokens that were moved the next request has found."""
        spared = found >= moved / 2
        self.spared_nothing[fit] = 0 if spared else self.spared_nothing.get(fit, 0) + 1

    def planned(
        self,
        *,
        source: Place,
        target: Place,
        tokens: float,
        size: float,
        saves: bool,
        read: float,
        why: str,
    ) -> CacheMove:
        """Predict a move."""
        here, there = source[0], target[0]
        return CacheMove(
            source=source[1],
            target=target[1],
            tokens=tokens,
            size=size,
            saves=saves,
            save=self.save(here).seconds(size) if saves else 0.0,
            link=self.link(here, there).seconds(size) if here != there else 0.0,
            restore=self.restore(there).seconds(size),
            read=read,
            why=why,
        )
