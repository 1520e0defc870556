"""Laptops and Pis as they are: what a machine's state does to its predictions. Pure.

Learning notices a slower machine after a few answers; this says it at once, and keeps
work away from machines whose owner needs them more.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeserve.wire import Hardware

ON_BATTERY = 1.3
"""Laptops save power on battery; by how much differs, and is learned."""

THROTTLED = 1.5
"""A Pi 5 that throttles falls from 2.4 to 1.5 GHz."""

UNDER_VOLTAGE = 1.5

LOW_PERCENT = 20.0
"""Below this a machine on battery is left alone."""

OWNER_LOAD = 0.5
"""Share of the processor that others use, above which its owner is at work."""

MOST_FOREIGN = 0.9
"""Past this the owner needs all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Which machines are asked at all."""

    on_battery: bool = True
    low_percent: float = LOW_PERCENT
    owner_first: bool = True


@dataclass(frozen=True, slots=True)
class Condition:
    """`scale` stretches every predicted second; `barred` says why nothing is sent."""

    scale: float = 1.0
    barred: str | None = None


POLICY = Policy()


def condition(hardware: Hardware, busy: float, policy: Policy = POLICY) -> Condition:
    """Judge a machine. `busy` is the share of its processor that our own work takes."""
    foreign = max(0.0, hardware.cpu.load - busy)
    barred = _barred(hardware, foreign, policy)
    scale = 1.0
    if not hardware.power.on_mains:
        scale *= ON_BATTERY
    if hardware.thermal.throttled:
        scale *= THROTTLED
    if hardware.thermal.under_voltage:
        scale *= UNDER_VOLTAGE
    if foreign > OWNER_LOAD:
        scale /= max(1 - foreign, 1 - MOST_FOREIGN)
    return Condition(scale, barred)


def _barred(hardware: Hardware, foreign: float, policy: Policy) -> str | None:
    power = hardware.power
    if not power.on_mains:
        if not policy.on_battery:
            return "it runs on battery"
        if power.percent is not None and power.percent < policy.low_percent:
            return f"its battery is at {power.percent:.0f} %"
    if policy.owner_first and foreign > MOST_FOREIGN:
        return f"its owner uses {foreign:.0%} of the processor"
    return None
