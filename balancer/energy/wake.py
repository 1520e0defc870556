"""Wake: which machine is woken for the requests that wait, and how often. Pure.

A machine is woken if nothing that is awake will serve a request, or if requests would
still wait when it is up: their predicted wait is longer than its boot. One is woken for
a kind of request at a time.

One is also woken once requests have lost more seconds on slower machines than it takes
to come up, times a factor of the preference: as skis are bought once their rent has
reached the price. One that does not come up is left alone for a minute, then two, four
and so on; requests that only it could serve are refused meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from balancer.fleet.engines import ASLEEP, EngineCandidate
from balancer.lifecycle.demand import Demand

FIRST_BOOT = 30.0
"""Seconds that a machine is thought to take to come up, before it has done so once."""

LEARN = 0.5
"""The weight of the last boot."""

GRACE = 3.0
"""So long a balancer waits for the one that sent the machine to sleep to wake it."""

REPEAT = 5.0
"""A magic packet may be lost: it is sent again."""

MINUTE, LONGEST_PAUSE = 60.0, 3600.0
PATIENCE = 3.0
"""A machine has so many times its usual boot, and a minute at least."""

GIVE_UP = 6
"""After so many vain tries it counts as gone, not as asleep."""

LOADS = 2.0
"""Where a model can be loaded on a machine that is awake, it has so many times the
usual load before another machine is woken."""


@dataclass(frozen=True, kw_only=True)
class SleepingMachine:
    """A machine that sleeps. `boot`: seconds it takes; `waking`: it was woken."""

    id: str
    name: str
    boot: float = FIRST_BOOT
    waking: bool = False


@dataclass(frozen=True, kw_only=True)
class WakeUp:
    """Wake a machine; `why` is for people."""

    machine: SleepingMachine
    why: str


def to_wake(
    demands: Iterable[Demand],
    sleeping: Mapping[str, SleepingMachine],
    wait: Callable[[Demand], float],
    now: float,
) -> Iterator[WakeUp]:
    """Yield what to wake; `wait` predicts the seconds that the last request waits."""
    for demand in demands:
        able = [each for each in demand.pending if each.node_id in sleeping]
        able = [each for each in able if each.unavailable == ASLEEP]
        machines = [sleeping[each.node_id] for each in able]
        if not able or any(each.waking for each in machines):
            continue
        best = min(able, key=lambda each: _seconds(each, sleeping))
        if why := _why(demand, wait, _seconds(best, sleeping), now):
            yield WakeUp(machine=sleeping[best.node_id], why=why)


def _seconds(engine: EngineCandidate, sleeping: Mapping[str, SleepingMachine]) -> float:
    """Return when it could answer: after its boot, and its load if it is not loaded."""
    loaded = engine.engine.state in {"ready", "busy"}
    load = 0.0 if loaded else engine.engine.load_seconds
    return sleeping[engine.node_id].boot + load


def _why(
    demand: Demand, wait: Callable[[Demand], float], seconds: float, now: float
) -> str:
    """Say why a machine is woken that can answer in so many seconds, "" for not."""
    model = demand.routing.model or "any model"
    waits = "1 request waits" if demand.count == 1 else f"{demand.count} requests wait"
    if demand.ready:
        predicted = wait(demand)
        if predicted <= seconds:
            return ""
        return f"{waits} for {model}, {predicted:.0f} s as predicted"
    loads = [
        each.engine.load_seconds
        for each in demand.pending
        if each.unavailable != ASLEEP and each.engine.state in {"absent", "loading"}
    ]
    if loads and now - demand.oldest < LOADS * max(min(loads), 1.0):
        return ""
    return f"{waits} for {model}, which nothing that is awake serves"


FACTORS = {"speed": 1.0, "balanced": 4.0}
"""By the preference; with `energy` only requests that wait wake a machine."""

HALF_LIFE = 600.0
"""Seconds after which half of what was lost is forgotten."""


@dataclass(slots=True)
class Losses:
    """The seconds that requests have lost because each machine slept."""

    factor: float | None
    _lost: dict[str, float] = field(default_factory=dict[str, float])
    _at: float = 0.0

    def passed(self, rates: Mapping[str, float], now: float) -> None:
        """Let time pass; `rates` are the seconds lost in a second, by machine."""
        seconds = max(0.0, now - self._at)
        kept, self._at = 0.5 ** (seconds / HALF_LIFE), now
        self._lost = {
            id_: kept * self._lost.get(id_, 0.0) + rate * seconds
            for id_, rate in rates.items()
        }

    def due(self, sleeping: Mapping[str, SleepingMachine]) -> WakeUp | None:
        """Return the machine without which most was lost, if that is enough."""
        lost = {id_: each for id_, each in self._lost.items() if id_ in sleeping}
        if not lost or self.factor is None:
            return None
        worst = max(lost, key=lambda id_: lost[id_])
        machine = sleeping[worst]
        if machine.waking or lost[worst] <= self.factor * machine.boot:
            return None
        why = f"requests have taken {lost[worst]:.0f} s longer without it"
        self._lost.clear()
        return WakeUp(machine=machine, why=why)


def lost_share(awake: float, asleep: float) -> float:
    """Return which share of its time a request loses on an engine that is awake.

    Both are the seconds of a token there, and where the machine sleeps.
    """
    return max(0.0, 1 - asleep / awake) if awake > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class Attempts:
    """Attempts to wake one machine: the one that goes on, and the vain ones so far.

    `began` is when it was woken, `sent` when last; None where nothing goes on. Until
    `rests` it is left alone.
    """

    began: float | None = None
    sent: float | None = None
    vain: int = 0
    rests: float = 0.0

    def due(self, now: float) -> bool:
        """Whether a magic packet is to be sent again."""
        return self.sent is not None and now - self.sent >= REPEAT

    def begun(self, now: float) -> Attempts:
        """Wake it now."""
        return Attempts(began=now, sent=now, vain=self.vain)

    def repeated(self, now: float) -> Attempts:
        """Send again."""
        return Attempts(began=self.began, sent=now, vain=self.vain)

    def failed(self, now: float, boot: float) -> bool:
        """Whether it should be up by now."""
        return self.began is not None and now - self.began >= patience(boot)

    def ended_in_vain(self, now: float) -> Attempts:
        """Leave it alone for a while, longer each time."""
        vain = self.vain + 1
        pause = min(MINUTE * 2.0 ** min(vain - 1, 10), LONGEST_PAUSE)
        return Attempts(vain=vain, rests=now + pause)


def patience(boot: float) -> float:
    """Return how long a machine may take to come up."""
    return max(MINUTE, PATIENCE * boot)


def learned(before: float | None, seconds: float) -> float:
    """Return the seconds that a machine takes to come up, after it has done so."""
    return seconds if before is None else before + LEARN * (seconds - before)
