"""Eviction: which engines leave, so that another one has the memory. Pure.

Idle ones leave first. Of these, the set with the least cost: the seconds of a reload,
of which half as much counts for each minute without a request.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

HALF_SECONDS = 60.0
"""After so many idle seconds, the reload counts half; after twice as many a third."""

BUSY_COST = 1e6
"""Seconds that a busy engine counts more than an idle one."""


@dataclass(frozen=True, kw_only=True)
class Resident:
    """An engine in memory, as eviction sees it; sizes in bytes.

    `gpu_memory` is on the GPUs `gpus`; none means all of them. `stays`: it is pinned.
    `held`: it loads, or has just been loaded for a request that is on its way.
    `leaves`: it leaves anyway.
    """

    id: str
    memory: int
    gpu_memory: int = 0
    gpus: tuple[str, ...] = ()
    stays: bool = False
    held: bool = False
    leaves: bool = False
    busy: bool = False
    reload_seconds: float = 1.0
    idle_seconds: float = 0.0

    @property
    def cost(self) -> float:
        """What it costs that it leaves, in seconds."""
        if self.leaves:
            return 0.0
        recent = HALF_SECONDS / (HALF_SECONDS + max(0.0, self.idle_seconds))
        return max(self.reload_seconds, 0.1) * recent + BUSY_COST * self.busy


@dataclass(frozen=True, kw_only=True)
class Shortage:
    """Bytes that have to become free: main memory, and memory on some GPUs."""

    memory: int
    gpu_memory: int = 0
    gpus: tuple[str, ...] = ()

    @property
    def over(self) -> bool:
        """Whether there is enough."""
        return self.memory <= 0 and self.gpu_memory <= 0

    def after(self, gone: Iterable[Resident]) -> Shortage:
        """Return what is short once these have left."""
        memory, gpu = self.memory, self.gpu_memory
        for each in gone:
            memory -= each.memory
            gpu -= each.gpu_memory if each.gpus == self.gpus else 0
        return Shortage(memory=memory, gpu_memory=gpu, gpus=self.gpus)

    def share(self, resident: Resident) -> float:
        """Return how much of the shortage an engine would end, 0 to 2."""
        left = self.after((resident,))
        return sum(
            min(1.0, (before - after) / before)
            for before, after in (
                (self.memory, left.memory),
                (self.gpu_memory, left.gpu_memory),
            )
            if before > 0
        )


@dataclass(frozen=True)
class Eviction:
    """The engines that leave, or why there are none that would suffice.

    `busy`: enough engines could leave, but not now. `never`: too much is pinned.
    """

    ids: tuple[str, ...] = ()
    verdict: Literal["room", "busy", "never"] = "room"


def evicted(
    residents: Sequence[Resident], short: Shortage, *, drain: bool = False
) -> Eviction:
    """Choose the engines that leave; with `drain`, busy ones may be among them."""
    if short.over:
        return Eviction()
    able = [each for each in residents if not each.stays]
    willing = [e for e in able if not e.held and (drain or not e.busy)]
    if chosen := _cheapest(willing, short):
        return Eviction(tuple(each.id for each in chosen))
    return Eviction(verdict="busy" if short.after(able).over else "never")


def _cheapest(residents: Sequence[Resident], short: Shortage) -> list[Resident]:
    """Return the cheapest set that suffices: one engine, or greedily several."""
    single = [each for each in residents if short.after((each,)).over]
    several = _several(residents, short)
    if not several:
        return []
    best = min(single, key=lambda each: (each.cost, each.memory, each.id), default=None)
    if best is None or sum(each.cost for each in several) < best.cost:
        return several
    return [best]


def _several(residents: Sequence[Resident], short: Shortage) -> list[Resident]:
    """Add engines by their cost for what they free; drop those that prove needless."""
    chosen: list[Resident] = []
    left = short
    rest = list(residents)
    while not left.over:
        rest = [each for each in rest if left.share(each) > 0]
        if not rest:
            return []
        now = left
        best = min(rest, key=lambda each: (each.cost / now.share(each), each.id))
        rest.remove(best)
        chosen.append(best)
        left = short.after(chosen)
    for each in sorted(chosen, key=lambda each: -each.cost):
        others = [other for other in chosen if other is not each]
        if short.after(others).over:
            chosen = others
    return chosen
