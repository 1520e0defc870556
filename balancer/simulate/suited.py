"""Whether a fleet serves the models that a trace asks for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from balancer.simulate.fleets import ANY, Machine
from balancer.simulate.trace import Call
from edgeserve.errors import CommandError


@dataclass(frozen=True, slots=True)
class Suited:
    """The fleet as it is to be played; `note` says where names were passed over."""

    fleet: tuple[Machine, ...]
    note: str = ""


def suited(fleet: Sequence[Machine], calls: Iterable[Call]) -> Suited:
    """Let machines without a model, or all where they name but one, serve every model.

    Whoever replays a trace on another fleet asks about machines, not about names.
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
