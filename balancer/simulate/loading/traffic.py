"""Traffic for several models: bursts, a day, two that alternate, two at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from math import pi, sin
from pathlib import Path

from balancer.simulate.loading.fleets import HostFleet
from balancer.simulate.loading.fleets import load as load_fleet
from balancer.simulate.traffic import Chats, Writer
from balancer.telemetry.trace import Call, with_replies
from balancer.telemetry.trace import load as load_trace

CHATS = Chats(turns=3.0, pause=15.0)
SINGLE = Chats(turns=1.0, systems=1, system_tokens=(100, 200), answer_tokens=40.0)
"""One question each, as from scripts."""

Begin = tuple[float, str]
"""When a conversation begins, and with which model."""

MINUTE, HOUR = 60.0, 3600.0


def bursts(writer: Writer, models: Sequence[str]) -> list[Begin]:
    """A trickle for every model; each ten minutes 15 chats for one, in a minute."""
    found = [each for model in models for each in _poisson(writer, model, HOUR, 1 / 90)]
    for number, model in enumerate(islice(cycle(models), 5)):
        start = (5 + 10 * number) * MINUTE
        found += [(start + writer.chance.uniform(0, MINUTE), model) for _ in range(15)]
    return found


def diurnal(writer: Writer, models: Sequence[str]) -> list[Begin]:
    """A day in two hours: each model has a night, and its noon at another time."""
    found = list[Begin]()
    for number, model in enumerate(models):
        phase = 2 * pi * number / len(models)
        for at, _ in _poisson(writer, model, 2 * HOUR, 0.05):
            noon = max(0.0, sin(2 * pi * at / (2 * HOUR) + phase))
            if writer.chance.random() < noon:
                found.append((at, model))
    return found


def alternate(writer: Writer, models: Sequence[str]) -> list[Begin]:  # noqa: ARG001
    """ABABAB twenty times, within twelve seconds, with the first and the last model."""
    pair = models[0], models[-1]
    return [(place / 10, model) for place, model in enumerate(pair * 60)]


def rounds(writer: Writer, models: Sequence[str]) -> list[Begin]:  # noqa: ARG001
    """ABABAB twenty times, two minutes apart."""
    pair = models[0], models[-1]
    return [
        (2 * MINUTE * number + place / 10, model)
        for number in range(20)
        for place, model in enumerate(pair * 3)
    ]


def rivals(writer: Writer, models: Sequence[str]) -> list[Begin]:
    """Two models that are asked for all the time, each for some of the capacity."""
    return [
        each
        for model in (models[0], models[-1])
        for each in _poisson(writer, model, HOUR, 1 / 6)
    ]


def _poisson(
    writer: Writer, model: str, seconds: float, per_second: float
) -> list[Begin]:
    found, at = list[Begin](), writer.chance.expovariate(per_second)
    while at < seconds:
        found.append((at, model))
        at += writer.chance.expovariate(per_second)
    return found


Pattern = Callable[[Writer, Sequence[str]], list[Begin]]

PATTERNS: dict[str, tuple[str, Pattern, Chats]] = {
    "bursts": ("three-boxes", bursts, CHATS),
    "diurnal": ("three-boxes", diurnal, CHATS),
    "alternate": ("one-box", alternate, SINGLE),
    "rounds": ("one-box", rounds, SINGLE),
    "rivals": ("one-box", rivals, SINGLE),
}
"""Patterns by name, with the fleet that each was made for."""


def made_up(pattern: str, models: Sequence[str], seed: int) -> list[Call]:
    """Make the conversations of a pattern; the same seed gives the same ones."""
    _, begins, chats = PATTERNS[pattern]
    writer = Writer(chats, seed)
    calls = [
        replace(call, model=model)
        for number, (at, model) in enumerate(sorted(begins(writer, models)))
        for call in writer.conversation(number, at)
    ]
    return with_replies(calls)


@dataclass(frozen=True, slots=True)
class Situation:
    """Requests and a fleet, with their names."""

    name: str
    calls: Sequence[Call]
    fleet_name: str
    fleet: HostFleet


def situations(
    fleet_name: str, trace_file: Path | None, patterns: Sequence[str], seed: int
) -> Iterator[Situation]:
    """Return what a trace holds, or made-up traffic; each on its usual fleet, if ""."""
    if trace_file:
        name = fleet_name or "three-boxes"
        fleet = load_fleet(name)
        yield Situation(trace_file.name, load_trace(trace_file), name, fleet)
        return
    for pattern in patterns:
        name = fleet_name or PATTERNS[pattern][0]
        fleet = load_fleet(name)
        yield Situation(pattern, made_up(pattern, fleet.models, seed), name, fleet)
