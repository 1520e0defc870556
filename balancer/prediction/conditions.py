"""Machine conditions: what battery, heat or a busy owner change. Pure.

Learning notices a slower machine after a few answers; this says it at once, and keeps
work away from machines whose owner needs them more.

A newcomer, an engine without measurements, stands back while others serve. What is
believed of it comes from its hardware and may be wrong by several times. A probe puts
that right within a second or so; a request that finds it out takes as long as the
machine is slow.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from balancer.prediction.engine_model import EngineModel
from edgeserve.wire import Hardware

ON_BATTERY = 1.3
"""Laptops save power on battery; by how much differs, and is learned."""

THROTTLED = 1.5
"""A Pi 5 that throttles falls from 2.4 to 1.5 GHz."""

UNDER_VOLTAGE = 1.5

LOW_PERCENT = 20.0
"""Below this a machine on battery is left alone."""

QUIET = 0.1
"""Share of the processor that others use on any machine."""

MOST_FOREIGN = 0.9
"""Past this the owner needs all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachinePolicy:
    """Which machines are asked at all."""

    on_battery: bool = True
    low_percent: float = LOW_PERCENT
    owner_first: bool = True


@dataclass(frozen=True, slots=True)
class Condition:
    """`scale` stretches every predicted second; `barred` says why nothing is sent."""

    scale: float = 1.0
    barred: str | None = None


POLICY = MachinePolicy()


def foreign_share(load: float, own: float, before: float) -> float:
    """The share of a processor that others use, where `own` of it may be our work's.

    `load` is the share in use by anybody. All of it may be foreign, and what exceeds
    our own part must be; between these two, what was seen `before` is taken to go on.
    So an owner who is at work does not vanish behind a prompt that we read, and is
    seen to leave when the processor is idle again.
    """
    return min(max(before, load - own), load)


def crowding(foreign: float, threads: int, cores: int) -> float:
    """By how much others' work slows an engine of so many threads: by its fair share.

    The system's scheduler gives each thread that can run an equal part of the time. On
    C cores our T threads and the F = foreign · C of others fit side by side as long as
    T + F <= C. Beyond that each has C / (T + F) of a core, so that everything takes
    (T + F) / C = T / C + foreign times as long: with a thread on each core and an owner
    who needs all of them twice as long, never ten times. Cores are physical ones: two
    threads on one core get little more done than one.
    """
    if foreign <= QUIET:
        return 1.0
    return max(1.0, min(1.0, threads / max(1, cores)) + foreign)


def condition(
    hardware: Hardware, foreign: float, threads: int, policy: MachinePolicy = POLICY
) -> Condition:
    """Judge a machine for an engine. `foreign` is the share that others use of it."""
    barred = _barred(hardware, foreign, policy)
    scale = 1.0
    if not hardware.power.on_mains:
        scale *= ON_BATTERY
    if hardware.thermal.throttled:
        scale *= THROTTLED
    if hardware.thermal.under_voltage:
        scale *= UNDER_VOLTAGE
    scale *= crowding(foreign, threads, hardware.cpu.physical_cores)
    return Condition(scale, barred)


def _barred(hardware: Hardware, foreign: float, policy: MachinePolicy) -> str | None:
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
"""By so much must one that was not measured either look faster."""

SECONDS = 10.0
"""For so long at most; whoever could not be measured by then is what it looks like."""

UNMEASURED = "its speed is being measured"


def stands_back(lane: EngineModel, serving: Iterable[EngineModel]) -> bool:
    """Whether one that is not measured should leave requests to those who serve."""
    return any(
        other.model == lane.model and _serves_better(other, lane)
        for other in serving
        if other is not lane
    )


def _serves_better(other: EngineModel, lane: EngineModel) -> bool:
    if other.learner.calibrated:
        return other.per_read < FAR * lane.per_read
    return FAR * other.per_read <= lane.per_read
