"""Comparison: run several policies on the same fleet and the same trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial

from msgspec.structs import replace

from balancer.simulate import baselines
from balancer.simulate.baselines import CacheAware, Classic, Rule
from balancer.simulate.edgeserve_policy import Edge, Oracle
from balancer.simulate.fleets import ANY, Machine
from balancer.simulate.report import Figures, figures
from balancer.simulate.states import Moving
from balancer.simulate.traffic import Chats, trace
from balancer.simulate.world import Policy, play
from balancer.telemetry.trace import Call
from edgeserve.errors import CommandError, SettingsError


@dataclass(frozen=True, slots=True)
class Suited:
    """The fleet to simulate; `note` says where model names were ignored."""

    fleet: tuple[Machine, ...]
    note: str = ""


def suited(fleet: Sequence[Machine], calls: Iterable[Call]) -> Suited:
    """Let machines without a model, or all if they name only one, serve every model.

    A trace is often replayed on another fleet, to compare machines, not model names.
    Raises CommandError where the fleet names several models and lacks one.
    """
    asked = {call.model for call in calls}
    named = {machine.model for machine in fleet} - {ANY}
    missing = asked - named
    if not missing:
        return Suited(tuple(fleet))
    if len(named) < len({machine.model for machine in fleet}):
        return Suited(tuple(fleet), f"machines without a `model` serve {_all(asked)}")
    if len(named) == 1:
        anything = tuple(replace(machine, model=ANY) for machine in fleet)
        return Suited(anything, f"machines of {_all(named)} serve {_all(asked)}")
    raise CommandError(
        f"no machine serves {_all(missing)}: the trace asks for {_all(asked)}, the"
        f" fleet serves {_all(named)}; a machine without a `model` serves every one"
    )


def _all(models: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(models)))


Make = Callable[[Sequence[Machine]], Policy]

CLASSIC: dict[str, Rule] = {
    "round-robin": baselines.round_robin,
    "least-conn": baselines.least_connections,
    "least-conn-slots": baselines.least_connections_by_slots,
    "two-choices": baselines.two_choices,
    "session-hash": baselines.session_hash,
}
"""Rules of common load balancers."""

POLICIES: dict[str, Make] = {
    **{name: partial(Classic, rule=rule) for name, rule in CLASSIC.items()},
    "least-conn-queued": baselines.Queued,
    "cache-aware": lambda fleet: Classic(fleet, CacheAware()),
    "cache-aware-tuned": lambda fleet: Classic(fleet, CacheAware(absolute=2)),
    "edgeserve": Edge,
    "edgeserve-states": Moving,
    "oracle": Oracle,
}
"""`cache-aware` has SGLang's default thresholds; `-tuned` those for few slots."""

CHATS = Chats()

PROBE = 300
"""Conversations with which the capacity of a fleet is measured."""


def made_up(
    fleet: Sequence[Machine], load: float, chats: int, seed: int, kind: Chats = CHATS
) -> list[Call]:
    """Make chats that need the share `load` of the capacity of the fleet."""
    return trace(kind, load * capacity(tuple(fleet), kind), chats, seed)


@cache
def capacity(fleet: tuple[Machine, ...], kind: Chats = CHATS) -> float:
    """Return the conversations a second that a fleet serves when more always wait.

    It is simulated with EdgeServe's policy, because the capacity depends on how much of
    each prompt is found cached.
    """
    calls = trace(kind, 1.4 * _guess(fleet, kind), PROBE, seed=0)
    ended = [each.ended for each in play(fleet, calls, Edge(fleet))]
    begin, end = 0.15 * max(ended), 0.6 * max(ended)
    per_second = sum(begin < each <= end for each in ended) / (end - begin)
    return per_second * PROBE / len(calls)


def _guess(fleet: tuple[Machine, ...], kind: Chats) -> float:
    """Estimate the capacity, if half of each prompt is cached."""
    system = sum(kind.system_tokens) / 2
    turn = kind.question_tokens + kind.answer_tokens
    fresh = 0.5 * (system + turn * (kind.turns + 1) / 2)
    seconds = [
        fresh / each.prefill
        + kind.answer_tokens * each.speed.token_seconds(each.slots) / each.slots
        for each in fleet
    ]
    return sum(1 / each for each in seconds) / kind.turns


def compare(
    fleet: Sequence[Machine],
    calls: Sequence[Call],
    names: Sequence[str] = (),
    seed: int = 1,
) -> list[Figures]:
    """Run the named policies, or all.

    Raises SettingsError for an unknown policy, CommandError for an unknown model.
    """
    for name in names:
        if name not in POLICIES:
            raise SettingsError(
                f"no policy is called {name!r}; there are {', '.join(POLICIES)}"
            )
    fleet = suited(fleet, calls).fleet
    return [
        figures(name, fleet, play(fleet, calls, POLICIES[name](fleet), seed))
        for name in names or POLICIES
    ]
