"""Model routes: virtual models that name real ones, as settings and requests give them.

A route names models in order of preference, and the reasons to take the next one. An
alias is a route with one model. Pure.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Any, Literal, cast, get_args

import msgspec

from edgeserve.openai import normal
from edgeserve.suggestions import did_you_mean

Reason = Literal["away", "full", "too-long"]
"""Why a route takes its next model: `away`: no engine can serve this one now, nor will
one have loaded within `full_seconds`. `full`: its first token is predicted later than
that. `too-long`: the prompt does not fit into its context."""

REASONS: tuple[Reason, ...] = get_args(Reason)

FULL_SECONDS = 10.0

MOST_MODELS = 16
"""Models of one route: each costs a prediction per request."""

LONGEST = 128
"""Characters of a name."""


class ModelRoute(msgspec.Struct, frozen=True, kw_only=True):
    """One route; its name and its models are in normal spelling."""

    name: str
    models: tuple[str, ...]
    when: tuple[Reason, ...] = REASONS
    full_seconds: float = FULL_SECONDS


KEYS = ModelRoute.__struct_fields__


class WrongRoute(ValueError):
    """What is wrong with a route, as the end of a sentence that names its place."""


def route_from(table: Mapping[str, Any]) -> ModelRoute:
    """Return the route that a table or a body describes. Raises WrongRoute."""
    for key in table:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(KEYS)}"
            raise WrongRoute(f"unknown key `{key}`; {hint}")
    return ModelRoute(
        name=_name("name", table.get("name")),
        models=_models(table.get("models")),
        when=_reasons(table.get("when", REASONS)),
        full_seconds=_seconds(table.get("full_seconds", FULL_SECONDS)),
    )


def _name(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise WrongRoute(f"`{key}` must be a model's name, not {value!r}")
    if len(value) > LONGEST or not value.isprintable() or "*" in value:
        raise WrongRoute(
            f"`{key}` is {value[:LONGEST]!r}; a name has at most {LONGEST} characters,"
            " all of them printable, and no `*`"
        )
    return normal(value)


def _models(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise WrongRoute(f"`models` must be a list of models' names, not {value!r}")
    names = tuple(_name("models", each) for each in cast("Sequence[Any]", value))
    if len(names) > MOST_MODELS:
        raise WrongRoute(f"`models` has {len(names)} names; the limit is {MOST_MODELS}")
    if len(set(names)) < len(names):
        raise WrongRoute(f"`models` names one twice: {', '.join(names)}")
    return names


def _reasons(value: Any) -> tuple[Reason, ...]:
    if not isinstance(value, list | tuple):
        raise WrongRoute(
            f"`when` must be a list of {', '.join(REASONS)}, not {value!r}"
        )
    for each in cast("Sequence[Any]", value):
        if each not in REASONS:
            hint = did_you_mean(str(each), REASONS)
            raise WrongRoute(
                f"`when` has {each!r}; it can have {', '.join(REASONS)}{hint}"
            )
    return tuple(each for each in REASONS if each in value)


def _seconds(value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < inf:
        raise WrongRoute(
            f"`full_seconds` must be a number of seconds above 0, not {value!r}"
        )
    return float(value)


def collision(routes: Iterable[ModelRoute]) -> str:
    """Say which routes exclude each other; an empty text if none do.

    A route may have the name of one of its own models, which it then stands for.
    """
    names = set[str]()
    every = list(routes)
    for each in every:
        if each.name in names:
            return f"two routes are called {each.name}"
        names.add(each.name)
    for each in every:
        for model in each.models:
            if model in names and model != each.name:
                return (
                    f"route {each.name} names {model}, which is a route itself; a route"
                    " names models only"
                )
    return ""
