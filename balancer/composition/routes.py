"""Routes: which of its models answers a request that names a route. Pure.

A request is given one model before it waits for a slot. Before its first token it may
get the next one, where the engines of its model have failed; never later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import msgspec

from edgeserve.config.routes import ModelRoute, Reason

Json = dict[str, Any]


FIRST = "first choice"


class Prospect(msgspec.Struct, frozen=True, kw_only=True):
    """What a request to one model would meet now.

    `away` says why no engine can serve it now, and `loads` in how many seconds one may
    have loaded, if that is known. `full` says why it has to wait longer than the route
    allows. `too_long` says by how much its prompt is too long. Empty texts: not so.
    `waits`: it would wait in the queue rather than be refused.
    """

    away: str = ""
    full: str = ""
    too_long: str = ""
    waits: bool = True


class Skipped(msgspec.Struct, frozen=True):
    """A model that does not answer: the reason, and a sentence with the details."""

    model: str
    reason: Reason | Literal["unsure"]
    why: str


class Choice(msgspec.Struct, frozen=True):
    """The model that answers, and those of higher preference that do not.

    `last`: none is without a reason against it.
    """

    model: str
    skipped: tuple[Skipped, ...] = ()
    last: bool = False

    @property
    def why(self) -> str:
        """The reason in plain words."""
        against = "; ".join(f"{each.model} {each.why}" for each in self.skipped)
        if not against:
            return FIRST
        return f"none is better off: {against}" if self.last else against


Look = Callable[[str], Prospect]
"""Returns the prospect of a model; asked for no model behind the one that answers."""


def choose(
    route: ModelRoute, look: Look, passed: Mapping[str, Skipped] | None = None
) -> Choice:
    """Return the first model without a reason to take the next one.

    Where every model has one, the first that can serve it at all, though it waits;
    else the first, whose error the client gets. Models in `passed` have failed it. An
    alias is not looked at.
    """
    if len(route.models) == 1:
        return Choice(route.models[0])
    skipped = list[Skipped]()
    waiting = ""
    for model in route.models:
        found = passed.get(model) if passed else None
        if found is None:
            prospect = look(model)
            found = against(route, model, prospect)
            if found is None:
                return Choice(model, tuple(skipped))
            if not waiting and prospect.waits and not prospect.too_long:
                waiting = model
        skipped.append(found)
    left = (each for each in route.models if not passed or each not in passed)
    best = waiting or next(left, route.models[0])
    return Choice(best, tuple(skipped), last=True)


def against(route: ModelRoute, model: str, prospect: Prospect) -> Skipped | None:
    """Return why the route takes its next model instead of this one, if it does."""
    found: Iterable[tuple[Reason, str]] = (
        ("away", prospect.away),
        ("too-long", prospect.too_long),
        ("full", prospect.full),
    )
    for reason, why in found:
        if why and reason in route.when:
            return Skipped(model, reason, why)
    return None


class Routed(msgspec.Struct, eq=False):
    """A request that names a route: which model answers, and which have failed it."""

    route: ModelRoute
    choice: Choice
    passed: dict[str, Skipped] = {}

    def shown(self) -> Json:
        """Render it for the request log."""
        return {
            "name": self.route.name,
            "model": self.choice.model,
            "why": self.choice.why,
            "skipped": [msgspec.structs.asdict(each) for each in self.choice.skipped],
        }


STATES = ("loaded", "loading", "available")
"""States of listed models, the best first."""


def listed(
    routes: Iterable[ModelRoute], models: Mapping[str, Mapping[str, Any]]
) -> dict[str, Json]:
    """List the routes among the models, by name; `models` are all that are listed.

    A route without any of its models is left out, as a model without engines is.
    """
    found = dict[str, Json]()
    for route in routes:
        known = [models[each] for each in route.models if each in models]
        if known:
            found[route.name] = _listed(route, known)
    return found


def _listed(route: ModelRoute, known: list[Mapping[str, Any]]) -> Json:
    states = {each.get("state") for each in known}
    state = next((each for each in STATES if each in states), None)
    return {
        "id": route.name,
        "object": "model",
        "created": max(each.get("created", 0) for each in known),
        "owned_by": "edgeserve",
        "route": route.models,
        "nodes": _union(known, "nodes"),
        "abilities": _union(known, "abilities"),
        "context": max(each.get("context", 0) for each in known),
        "slots": sum(each.get("slots", 0) for each in known),
    } | ({} if state is None else {"state": state})


def _union(known: list[Mapping[str, Any]], key: str) -> list[str]:
    return sorted({name for each in known for name in each.get(key, ())})
