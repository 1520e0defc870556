"""A day of energy: each preference on the same day's trace, with sleep and without."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import cos, inf, pi

import msgspec
from rich.table import Table

from balancer.simulate.energy.policy import FrugalEdge
from balancer.simulate.fleets import Machine
from balancer.simulate.report import blank, digits, figures
from balancer.simulate.traffic import Chats, Writer
from balancer.simulate.world import CallOutcome, play
from balancer.telemetry.trace import Call, with_replies
from edgeserve.config.routing import PREFERENCES
from edgeserve.errors import SettingsError

DAY = 86_400.0
NIGHT = 0.02
"""The rate of conversations at four in the morning, of that in the afternoon."""

QUIETEST = 4 * 3600.0
AFTER = 900.0
"""Idle seconds until a machine sleeps, as by default."""

KWH = 3.6e6

HOUSEHOLD = (
    Machine(name="pi-1", prefill=24, decode=6, idle=3.0, full=8.0),
    Machine(name="pi-2", prefill=30, decode=7, idle=3.0, full=8.0),
    Machine(
        name="laptop", slots=2, prefill=160, decode=20, idle=8.0, full=45.0, boot=8.0
    ),
    Machine(
        name="mini", slots=2, prefill=220, decode=24, idle=9.0, full=45.0, boot=10.0
    ),
    Machine(
        name="gpu", slots=4, prefill=2200, decode=90, slowdown=0.08, batch=512,
        attention=0.01, idle=60.0, full=330.0, boot=15.0,
    ),
)  # fmt: skip
"""Two Pis that are always on, a laptop, a mini PC and a GPU box that may sleep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyFigures:
    """One preference on a day. Kilowatt hours, joules, seconds, shares.

    `work` are the joules above idle machines, for each token written.
    """

    prefer: str
    sleeps: bool
    kwh: float
    work: float
    first_p50: float
    first_p95: float
    whole_p50: float
    whole_p95: float
    wakes: int
    shares: tuple[float, ...]


def a_day(conversations: int, seed: int, chats: Chats | None = None) -> list[Call]:
    """Make the conversations of a day: few at night, most in the afternoon."""
    writer = Writer(chats or Chats(), seed)
    calls: list[Call] = []
    for number, at in enumerate(sorted(_begins(conversations, seed))):
        calls += writer.conversation(number, at)
    return with_replies(calls)


def _begins(conversations: int, seed: int) -> Iterator[float]:
    chance = random.Random(seed)  # noqa: S311 - a simulation
    while conversations:
        at = chance.uniform(0, DAY)
        rate = NIGHT + (1 - NIGHT) * (1 - cos(2 * pi * (at - QUIETEST) / DAY)) / 2
        if chance.random() < rate:
            conversations -= 1
            yield at


def compare(
    fleet: Sequence[Machine], calls: Sequence[Call], seed: int = 1
) -> list[EnergyFigures]:
    """Run every preference on a trace, with machines that stay awake and that sleep."""
    return [
        _run(fleet, calls, prefer, after, seed)
        for after in (0.0, AFTER)
        for prefer in PREFERENCES
    ]


def _run(
    fleet: Sequence[Machine],
    calls: Sequence[Call],
    prefer: str,
    after: float,
    seed: int,
) -> EnergyFigures:
    policy = FrugalEdge(fleet, prefer, after)
    outcomes = play(fleet, calls, policy, seed)
    end = max((DAY, *(each.ended for each in outcomes)))
    for meter in policy.meters:
        meter.change(0.0, end)
    found = figures(prefer, fleet, outcomes)
    written = sum(each.call.answer_tokens for each in outcomes if each.ended >= 0)
    return EnergyFigures(
        prefer=prefer,
        sleeps=after > 0,
        kwh=sum(each.joules for each in policy.meters) / KWH,
        work=_work(fleet, outcomes) / max(1, written),
        first_p50=found.first_p50,
        first_p95=found.first_p95,
        whole_p50=found.whole_p50,
        whole_p95=found.whole_p95,
        wakes=policy.wakes,
        shares=found.shares,
    )


def _work(fleet: Sequence[Machine], outcomes: Sequence[CallOutcome]) -> float:
    """Return the joules above idle: of the time in which each engine had requests."""
    joules = 0.0
    for number, machine in enumerate(fleet):
        spans = sorted(
            (each.sent, each.ended)
            for each in outcomes
            if each.engine == number and each.ended >= 0
        )
        until = busy = 0.0
        for begin, end in spans:
            busy += max(0.0, end - max(begin, until))
            until = max(until, end)
        joules += busy * (machine.full - machine.idle)
    return joules


def with_watts(fleet: Sequence[Machine]) -> Sequence[Machine]:
    """Return a fleet whose watts and boots make sense. Raises SettingsError."""
    for each in fleet:
        if not 0 <= each.idle <= each.full < inf or each.full == 0:
            raise SettingsError(
                f"--energy needs the watts of {each.name}: `idle` while it waits, and"
                " `full` while it answers, at least as many"
            )
        if not 0 <= each.boot < inf:
            raise SettingsError(
                f"`boot` of {each.name} is {each.boot:g}; it is the seconds until it"
                " is up, 0 for a machine that never sleeps"
            )
    return fleet


TIMES = ("first\np50", "\np95", "whole\np50", "\np95")


def times(title: str, rows: Sequence[EnergyFigures]) -> Table:
    """Return what each preference takes, and the seconds that clients wait."""
    made = blank(title, ("machines", "kWh", "J/token\nabove idle", *TIMES, "wakes"))
    for row in rows:
        seconds = row.first_p50, row.first_p95, row.whole_p50, row.whole_p95
        made.add_row(
            row.prefer,
            _nights(row),
            f"{row.kwh:.2f}",
            f"{row.work:.2f}",
            *map(digits, seconds),
            str(row.wakes),
        )
    return made


def shares(fleet: Sequence[Machine], rows: Sequence[EnergyFigures]) -> Table:
    """Return the share of the requests that each machine answered."""
    names = [each.name for each in fleet]
    made = blank("share of the requests", ("machines", *names))
    for row in rows:
        answered = (f"{share:.0%}" for share in row.shares)
        made.add_row(row.prefer, _nights(row), *answered)
    return made


def _nights(row: EnergyFigures) -> str:
    return "sleep" if row.sleeps else "awake"


def as_json(rows: Sequence[EnergyFigures]) -> str:
    """Return the figures as JSON."""
    return msgspec.json.format(msgspec.json.encode(rows), indent=2).decode()
