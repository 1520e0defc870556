"""Swaps: when an engine leaves for a model that has no room beside it. Pure.

Two models that are asked for by turns and have room for one would be loaded for each
request. So requests of one model are served together:

- An engine without requests leaves once it has had none for a moment (`lull`).
- One that works, or that waiting requests want, stays until the oldest request for the
  other model has waited for a quantum, and until it has been loaded for a quantum.
- What came within that quantum belongs to the same batch and is served first, as long
  as the other model's requests are not in danger of waiting in vain.

So what is sent at once needs one load a model, however it is mixed; and while both
models are asked for all the time, at most a fifth of the time goes into loads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from balancer.fleet.engines import EngineCandidate

QUANTUM_LOADS = 4.0
"""Quanta are so many times as long as both loads: more of them make both models wait,
fewer of them waste more of the machine."""

LEAST_QUANTUM = 10.0
"""Seconds. Small models load in less than one; then it is the answers that take time,
and more turns would end no batch earlier."""

LULL_SHARE, MOST_LULL = 0.25, 0.5
"""An engine stays for a quarter of the seconds of both loads after its last request, at
most half a second: its clients may just be about to ask again. Two seconds cost more
than they saved (MEASURED.md)."""

PATIENCE_SHARE = 0.5
"""Share of the longest wait after which a batch that is served no longer matters."""


@dataclass(frozen=True, kw_only=True)
class Resident:
    """An engine that would have to leave for another, at one moment.

    `wanted` is when each waiting request came that it can serve. `worked` is when it
    last had a request, `loaded` when it was loaded. `drains`: seconds until what runs
    there has ended.
    """

    to: EngineCandidate
    busy: bool = False
    wanted: Sequence[float] = ()
    worked: float = -inf
    loaded: float = -inf
    drains: float = 0.0

    @property
    def idle(self) -> bool:
        """Whether nothing runs there or waits for it."""
        return not (self.busy or self.wanted or self.to.engine.state == "loading")


def usual_quantum(load_seconds: float) -> float:
    """Return the quantum of engines whose loads take so many seconds together."""
    return max(LEAST_QUANTUM, QUANTUM_LOADS * load_seconds)


def quantum(resident: Resident, load_seconds: float, patience: float) -> float:
    """Return the seconds for which one model is served before the other's turn."""
    usual = usual_quantum(resident.to.engine.load_seconds + load_seconds)
    # Else the other model's requests would be given up before their turn.
    return min(usual, max(0.0, PATIENCE_SHARE * patience - load_seconds))


def stays(
    resident: Resident,
    *,
    load_seconds: float,
    oldest: float,
    patience: float,
    now: float,
) -> float:
    """Return for how many more seconds an engine stays; 0 where it may leave now.

    Requests for the other engine, which takes `load_seconds`, wait since `oldest`, and
    are given up after `patience` seconds.
    """
    if resident.to.engine.state not in {"ready", "busy", "loading"}:
        return 0.0
    if resident.idle:
        both = resident.to.engine.load_seconds + load_seconds
        lull = min(LULL_SHARE * both, MOST_LULL)
        return max(0.0, max(resident.worked, resident.loaded) + lull - now)
    seconds = quantum(resident, load_seconds, patience)
    turn = max(oldest, resident.loaded) + seconds
    in_danger = oldest + max(PATIENCE_SHARE * patience - load_seconds, seconds)
    if any(came < oldest + seconds for came in resident.wanted):
        turn = max(turn, in_danger)
    elif not resident.wanted:
        turn = min(turn, now + max(resident.drains, BRIEFLY))
    return max(0.0, turn - now)


BRIEFLY = 0.1
"""What still runs has not ended, whatever was predicted."""
