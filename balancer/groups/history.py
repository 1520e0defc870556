"""Group history: which members were lost lately, and how often groups were formed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from edgeserve.openai import normal
from edgeserve.wire import EngineReport

LOST_SECONDS = 20.0
"""So long a member that was lost is left out, though its node seems to be up."""

MOST_FORMED, FORMED_SECONDS = 4, 600.0
"""A group is formed so often in so many seconds at most: each sends its weights."""


SEEN_SECONDS = 10.0
"""So soon the head of a group that is formed has reported it, or it will not."""


@dataclass
class GroupHistory:
    """Losses and formations, as far as they matter yet.

    Formations of groups that left in good order are forgotten: only losses repeat.
    """

    clock: Callable[[], float]
    _lost: dict[str, float] = field(default_factory=dict[str, float])
    _formed: dict[str, deque[float]] = field(default_factory=dict[str, deque[float]])
    _whole: set[str] = field(default_factory=set[str])
    """Variants whose last group has lost no member."""
    _unseen: set[str] = field(default_factory=set[str])
    """Variants whose last group no head has reported yet."""

    def note(self, engines: Iterable[EngineReport]) -> None:
        """Take in which members of groups their heads have lost, and which leave."""
        for engine in engines:
            self._unseen.discard(normal(engine.variant))
            for member in engine.group:
                if member.state == "lost":
                    self._lost[member.node] = self.clock() + LOST_SECONDS
                    self._whole.discard(normal(engine.variant))
            if engine.state == "leaving":
                self.left(engine.variant)

    def lost(self) -> frozenset[str]:
        """Return the nodes whose part in a group was lost a moment ago."""
        now = self.clock()
        self._lost = {node: until for node, until in self._lost.items() if until > now}
        return frozenset(self._lost)

    def formed(self, variant: str) -> None:
        """Note that a variant's group is formed now."""
        times = self._formed.setdefault(normal(variant), deque(maxlen=MOST_FORMED))
        times.append(self.clock())
        self._whole.add(normal(variant))
        self._unseen.add(normal(variant))

    def left(self, variant: str) -> None:
        """Forget when a variant's group was formed, as it leaves in good order."""
        if (name := normal(variant)) in self._whole:
            self._whole.discard(name)
            self._formed[name].pop()

    def rest(self, variant: str) -> float:
        """Return for how many seconds a variant's group is not to be formed again."""
        formed = self._formed.get(normal(variant)) or deque[float]()
        if len(formed) < MOST_FORMED:
            return 0.0
        if normal(variant) in self._unseen and formed[-1] + SEEN_SECONDS > self.clock():
            return 0.0
        return max(0.0, formed[0] + FORMED_SECONDS - self.clock())
