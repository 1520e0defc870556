"""Several policies on the same fleet and the same trace."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.simulate.chats import Chats, capacity, trace
from balancer.simulate.figures import Figures, figures
from balancer.simulate.fleets import Machine
from balancer.simulate.policies import POLICIES
from balancer.simulate.trace import Call
from balancer.simulate.world import play
from edgeserve.errors import CommandError


def made_up(
    fleet: Sequence[Machine],
    load: float,
    chats: int,
    seed: int,
    kind: Chats | None = None,
) -> list[Call]:
    """Chats at a share of what the fleet can carry."""
    kind = kind or Chats()
    return trace(kind, load * capacity(fleet, kind), chats, seed)


def compare(
    fleet: Sequence[Machine],
    calls: Sequence[Call],
    names: Sequence[str] = (),
    seed: int = 1,
) -> list[Figures]:
    """Run each policy that is named, or all. CommandError on a name nobody has."""
    for name in names:
        if name not in POLICIES:
            known = ", ".join(POLICIES)
            raise CommandError(f"no policy is called {name!r}; there are {known}")
    models = {machine.model for machine in fleet}
    for call in calls:
        if call.model not in models:
            raise CommandError(
                f"the trace asks for {call.model!r}, which no machine serves;"
                f" the fleet has {', '.join(sorted(models))}"
            )
    return [
        figures(name, fleet, play(fleet, calls, POLICIES[name](fleet), seed))
        for name in names or POLICIES
    ]
