"""Several policies on the same fleet and the same trace."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from balancer.simulate.chats import Chats, trace
from balancer.simulate.edge import Edge
from balancer.simulate.figures import Figures, figures
from balancer.simulate.fleets import Machine
from balancer.simulate.policies import POLICIES
from balancer.simulate.suited import suited
from balancer.simulate.trace import Call
from balancer.simulate.world import play
from edgeserve.errors import SettingsError

CHATS = Chats()

PROBE = 300
"""Conversations that find out what a fleet can carry."""


def made_up(
    fleet: Sequence[Machine],
    load: float,
    chats: int,
    seed: int,
    kind: Chats = CHATS,
) -> list[Call]:
    """Chats that ask for a share, `load`, of what the fleet can carry."""
    return trace(kind, load * capacity(tuple(fleet), kind), chats, seed)


@cache
def capacity(fleet: tuple[Machine, ...], kind: Chats = CHATS) -> float:
    """Conversations a second that a fleet carries when there are always more.

    Tried out, with EdgeServe's policy: how much of a prompt is found cached, and so
    what a fleet can carry, cannot be told otherwise.
    """
    calls = trace(kind, 1.4 * _guess(fleet, kind), PROBE, seed=0)
    ended = [each.ended for each in play(fleet, calls, Edge(fleet))]
    begin, end = 0.15 * max(ended), 0.6 * max(ended)
    per_second = sum(begin < each <= end for each in ended) / (end - begin)
    return per_second * PROBE / len(calls)


def _guess(fleet: tuple[Machine, ...], kind: Chats) -> float:
    """The same, if half of each prompt were cached."""
    system = sum(kind.system_tokens) / 2
    turn = kind.question_tokens + kind.answer_tokens
    fresh = 0.5 * (system + turn * (kind.turns + 1) / 2)
    per_second = sum(
        1
        / (
            fresh / machine.prefill
            + kind.answer_tokens
            * machine.speed.token_seconds(machine.slots)
            / machine.slots
        )
        for machine in fleet
    )
    return per_second / kind.turns


def compare(
    fleet: Sequence[Machine],
    calls: Sequence[Call],
    names: Sequence[str] = (),
    seed: int = 1,
) -> list[Figures]:
    """Run each policy that is named, or all.

    Raises SettingsError on the name of a policy or a model that nobody has.
    """
    for name in names:
        if name not in POLICIES:
            known = ", ".join(POLICIES)
            raise SettingsError(f"no policy is called {name!r}; there are {known}")
    fleet = suited(fleet, calls).fleet
    return [
        figures(name, fleet, play(fleet, calls, POLICIES[name](fleet), seed))
        for name in names or POLICIES
    ]
