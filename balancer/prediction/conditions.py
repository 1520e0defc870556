"""Machine conditions: how battery, heat or a busy owner change the prediction. Pure.

Learning notices a slower machine after a few answers. This module notices it at once,
and keeps requests away from machines that their owner needs.

A new engine, one without measurements, gets no requests while others serve. Its
expected speed comes from its hardware and may be wrong by several times. A probe
corrects that within about a second; a user's request would take as long as the machine
is slow.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from balancer.prediction.engine_model import EngineModel
from edgeserve.reports.hardware import Hardware

ON_BATTERY = 1.3
"""Laptops are slower on battery; the exact factor is learned."""

THROTTLED = 1.5
"""A Pi 5 that throttles falls from 2.4 to 1.5 GHz."""

UNDER_VOLTAGE = 1.5

LOW_PERCENT = 20.0
"""A machine on battery gets no requests below this charge."""

QUIET = 0.1
"""The share of the processor that other programs use on any machine."""

MOST_FOREIGN = 0.9
"""Above this the owner needs all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachinePolicy:
    """Which machines get requests at all."""

    on_battery: bool = True
    low_percent: float = LOW_PERCENT
    owner_first: bool = True


@dataclass(frozen=True, slots=True)
class Condition:
    """`scale` stretches every predicted second; `avoided` says why it gets nothing."""

    scale: float = 1.0
    avoided: str | None = None


POLICY = MachinePolicy()


def foreign_share(load: float, own: float, before: float) -> float:
    """Return the share of a processor that other programs use.

    `load` is the share in use; `own` is how much of it may be our work. At least
    `load - own` and at most `load` is foreign; between these two, the value from
    `before` is kept. So the owner's work does not vanish behind a prompt that we read,
    and its end is seen when the processor is idle again.
    """
    return min(max(before, load - own), load)


def crowding(foreign: float, threads: int, cores: int) -> float:
    """Return by which factor other programs slow an engine with so many threads.

    The system's scheduler gives each thread that can run an equal part of the time. On
    C cores our T threads and the F = foreign · C of others fit side by side as long as
    T + F <= C. Beyond that each has C / (T + F) of a core, so that everything takes
    (T + F) / C = T / C + foreign times as long: twice as long with a thread on each
    core and an owner that needs all of them, never ten times. Cores are physical ones:
    two threads on one core get little more done than one.
    """
    if foreign <= QUIET:
        return 1.0
    return max(1.0, min(1.0, threads / max(1, cores)) + foreign)


def condition(
    hardware: Hardware, foreign: float, threads: int, policy: MachinePolicy = POLICY
) -> Condition:
    """Judge a machine for an engine; `foreign` is the share that others use of it."""
    avoided = _avoided(hardware, foreign, policy)
    scale = 1.0
    if not hardware.power.on_mains:
        scale *= ON_BATTERY
    if hardware.thermal.throttled:
        scale *= THROTTLED
    if hardware.thermal.under_voltage:
        scale *= UNDER_VOLTAGE
    scale *= crowding(foreign, threads, hardware.cpu.physical_cores)
    return Condition(scale, avoided)


def _avoided(hardware: Hardware, foreign: float, policy: MachinePolicy) -> str | None:
    power = hardware.power
    if not power.on_mains:
        if not policy.on_battery:
            return "it runs on battery"
        if power.percent is not None and power.percent < policy.low_percent:
            return f"its battery is at {power.percent:.0f} %"
    if policy.owner_first and foreign > MOST_FOREIGN:
        return f"its owner uses {foreign:.0%} of the processor"
    return None


FAR = 4.0
"""An unmeasured engine must look faster than another one by this factor."""

SECONDS = 10.0
"""Seconds to wait for a measurement; after that the expected speed counts."""

UNMEASURED = "its speed is being measured"


class Serving:
    """The fastest engine of each model that serves, measured ones apart from others."""

    def __init__(self, engines: Iterable[EngineModel]) -> None:
        self._fastest: dict[tuple[str, bool], float] = {}
        for each in engines:
            which = each.model, each.learner.calibrated
            self._fastest[which] = min(self._fastest.get(which, inf), each.per_read)

    def better_than(self, engine: EngineModel) -> bool:
        """Whether an unmeasured engine should leave requests to these."""
        measured = self._fastest.get((engine.model, True), inf)
        guessed = self._fastest.get((engine.model, False), inf)
        return measured < FAR * engine.per_read or FAR * guessed <= engine.per_read
