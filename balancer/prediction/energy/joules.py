"""Joules: what a token takes on each engine, learned from its machine's watts. Pure.

A machine tells the watts W of an interval, and the share s of it in which its engines
had requests. Above idle its engines took W - idle in that share, so that

    watts at work = sum of (W - idle) / sum of s

over the latest intervals; whatever worked in an interval learns from it. Seconds of an
engine are predicted anyway, so a token takes the watts at work for its seconds, divided
among the answers that are written at the same time. Until something was measured a
table of the node's stands for both.

Nothing is counted with a request: the fleet is looked at once a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from balancer.fleet.engines import EngineKey
from balancer.fleet.members import Node
from balancer.prediction.engine_model import EngineModel
from edgeserve.reports.hardware import Power

FADE = 0.9
"""What an interval counts for after the next one."""

LEAST_SHARE = 0.05
"""With less work in an interval its watts are those of an idle machine."""

QUIET = 0.001
IDLE_LEARN = 0.1

Models = Callable[[EngineKey], EngineModel | None]


@dataclass(slots=True)
class _Work:
    """Watts above idle and shares of intervals, both fading."""

    watts: float = 0.0
    share: float = 0.0

    def learn(self, watts: float, share: float) -> None:
        self.watts = FADE * self.watts + max(0.0, watts)
        self.share = FADE * self.share + share


@dataclass(slots=True)
class _Machine:
    """What is known of a machine; `seen` is its last reading."""

    seen: Power | None = None
    idle: float | None = None
    at: float = 0.0


@dataclass(frozen=True)
class EngineEnergy:
    """Joules of one token read and one written by one stream; whether measured."""

    read: float
    write: float
    measured: bool


@dataclass(slots=True)
class EnergyBook:
    """The watts of each engine at work. `worked_at` tells when one last worked."""

    models: Models
    worked_at: Callable[[EngineKey], float]
    _machines: dict[str, _Machine] = field(default_factory=dict[str, _Machine])
    _work: dict[EngineKey, _Work] = field(default_factory=dict[EngineKey, _Work])

    def look(self, nodes: Iterable[Node], now: float) -> None:
        """Take in what the nodes have measured since the last look."""
        known, self._machines = self._machines, {}
        for node in nodes:
            power = node.report.hardware.power
            machine = known.get(node.id) or _Machine(at=now)
            self._machines[node.id] = machine
            if machine.seen is not power:
                self._learn(node, machine, power)
                machine.seen, machine.at = power, now
            for engine in node.report.engines:
                key = node.id, engine.id
                model = self.models(key)
                if model is not None:
                    model.watts = self.watts(key, power)

    def _learn(self, node: Node, machine: _Machine, power: Power) -> None:
        if power.watts is None:
            return
        if power.working < QUIET:
            before = power.watts if machine.idle is None else machine.idle
            machine.idle = before + IDLE_LEARN * (power.watts - before)
            return
        if power.working < LEAST_SHARE:
            return
        idle = power.idle if machine.idle is None else machine.idle
        for engine in node.report.engines:
            key = node.id, engine.id
            if self.worked_at(key) >= machine.at:
                work = self._work.setdefault(key, _Work())
                work.learn(power.watts - idle, power.working)

    def dump(self) -> dict[str, tuple[float, float]]:
        """Return what was learned, by node and engine, to be kept."""
        return {" ".join(key): (e.watts, e.share) for key, e in self._work.items()}

    def load(self, kept: Mapping[str, tuple[float, float]]) -> None:
        """Take in what `dump` returned."""
        for name, (watts, share) in kept.items():
            node, _, engine = name.partition(" ")
            self._work[node, engine] = _Work(watts, share)

    def watts(self, key: EngineKey, power: Power) -> float:
        """Return what an engine takes at work, above its idle machine."""
        work = self._work.get(key)
        if work is not None and work.share > 0 and work.watts > 0:
            return work.watts / work.share
        return max(0.0, power.full - power.idle)

    def energy(self, key: EngineKey) -> EngineEnergy | None:
        """Return what a token takes on an engine; None where nothing is known."""
        model = self.models(key)
        if model is None or model.watts <= 0:
            return None
        speed, work = model.speed, self._work.get(key)
        return EngineEnergy(
            read=model.watts * speed.prefill * model.scale,
            write=model.watts * speed.decode * model.scale,
            measured=work is not None and work.watts > 0,
        )
