"""Model routes: virtual models that name real ones, as settings and requests give them.

A route names models in order of preference, and the reasons to take the next one. An
alias is a route with one model; in a cascade the first model's own doubt is a reason,
too. Pure.
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


HOLD_TOKENS = 64
MOST_HELD = 4096
MEAN_LOGPROB = -0.6


class ModelRoute(msgspec.Struct, frozen=True, kw_only=True):
    """One route; its name and its models are in normal spelling.

    With `hold_tokens` it is a cascade: the first model's answer is held back for so
    many tokens, and the second one answers if their mean log-probability is below
    `min_mean_logprob`.
    """

    name: str
    models: tuple[str, ...]
    when: tuple[Reason, ...] = REASONS
    full_seconds: float = FULL_SECONDS
    hold_tokens: int = 0
    min_mean_logprob: float = MEAN_LOGPROB

    def shown(self) -> dict[str, Any]:
        """Render it as a table that `route_from` takes."""
        rest = {"when": list(self.when), "full_seconds": self.full_seconds}
        models = list(self.models)
        if not self.hold_tokens:
            return {"name": self.name, "models": models, **rest}
        rest["min_mean_logprob"] = self.min_mean_logprob
        return {
            "name": self.name,
            "cascade": models,
            **rest,
            "hold_tokens": self.hold_tokens,
        }


CASCADE = ("min_mean_logprob", "hold_tokens")
KEYS = ("name", "models", "when", "full_seconds", "cascade", *CASCADE)


class WrongRoute(ValueError):
    """What is wrong with a route, as the end of a sentence that names its place."""


def route_from(table: Mapping[str, Any]) -> ModelRoute:
    """Return the route that a table or a body describes. Raises WrongRoute."""
    for key in table:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(KEYS)}"
            raise WrongRoute(f"unknown key `{key}`; {hint}")
    route = ModelRoute(
        name=_name("name", table.get("name")),
        models=_models(table),
        when=_reasons(table.get("when", REASONS)),
        full_seconds=_seconds(table.get("full_seconds", FULL_SECONDS)),
    )
    return _cascade(route, table) if "cascade" in table else route


def _name(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise WrongRoute(f"`{key}` must be a model's name, not {value!r}")
    if len(value) > LONGEST or not value.isprintable() or "*" in value:
        raise WrongRoute(
            f"`{key}` is {value[:LONGEST]!r}; a name has at most {LONGEST} characters,"
            " all of them printable, and no `*`"
        )
    return normal(value)


def _models(table: Mapping[str, Any]) -> tuple[str, ...]:
    key = "cascade" if "cascade" in table else "models"
    if key == "cascade" and "models" in table:
        raise WrongRoute("`models` and `cascade` exclude each other")
    value = table.get(key)
    if not isinstance(value, list | tuple) or not value:
        raise WrongRoute(f"`{key}` must be a list of models' names, not {value!r}")
    names = tuple(_name(key, each) for each in cast("Sequence[Any]", value))
    if len(names) > MOST_MODELS:
        raise WrongRoute(f"`{key}` has {len(names)} names; the limit is {MOST_MODELS}")
    if len(set(names)) < len(names):
        raise WrongRoute(f"`{key}` names one twice: {', '.join(names)}")
    if key == "models" and (extra := [each for each in CASCADE if each in table]):
        raise WrongRoute(f"`{extra[0]}` needs a `cascade` instead of `models`")
    return names


def _cascade(route: ModelRoute, table: Mapping[str, Any]) -> ModelRoute:
    if len(route.models) != 2:
        raise WrongRoute("`cascade` must name two models, the small one first")
    least = table.get("min_mean_logprob", MEAN_LOGPROB)
    number = isinstance(least, int | float) and not isinstance(least, bool)
    if not number or not -inf < least < 0:
        raise WrongRoute(f"`min_mean_logprob` must be a number below 0, not {least!r}")
    hold = table.get("hold_tokens", HOLD_TOKENS)
    if type(hold) is not int or not 1 <= hold <= MOST_HELD:
        raise WrongRoute(
            f"`hold_tokens` must be a number of tokens, 1 to {MOST_HELD}, not {hold!r}"
        )
    return msgspec.structs.replace(
        route, hold_tokens=hold, min_mean_logprob=float(least)
    )


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
