"""Which model of a route answers: pure rules."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from balancer.composition.prospects import load_left
from balancer.composition.routes import (
    Choice,
    Prospect,
    Skipped,
    against,
    choose,
    listed,
)
from edgeserve.config.routes import ModelRoute, WrongRoute, collision, route_from
from tests.fakes.reports import an_engine

ROUTE = ModelRoute(name="assistant", models=("big", "small"))
WELL = Prospect()
AWAY = Prospect(away="is away: loading")
GONE = Prospect(away="is served by no node", waits=False)
FULL = Prospect(full="is full: its first token would come in 41.0 s")
TOO_LONG = Prospect(too_long="has a context of 512 tokens")


def chosen(big: Prospect, small: Prospect, route: ModelRoute = ROUTE) -> Choice:
    return choose(route, {"big": big, "small": small}.__getitem__)


def test_the_first_model_answers_where_nothing_speaks_against_it() -> None:
    def look(model: str) -> Prospect:
        assert model == "big", "nothing is computed for models behind it"
        return WELL

    choice = choose(ROUTE, look)

    assert (choice.model, choice.why) == ("big", "first choice")


@pytest.mark.parametrize(
    ("prospect", "reason"),
    [(AWAY, "away"), (GONE, "away"), (FULL, "full"), (TOO_LONG, "too-long")],
)
def test_each_reason_takes_the_next_model_and_is_told(
    prospect: Prospect, reason: str
) -> None:
    choice = chosen(prospect, WELL)

    (skipped,) = choice.skipped
    assert (choice.model, skipped.reason) == ("small", reason)
    assert choice.why == f"big {skipped.why}"


@pytest.mark.parametrize("prospect", [AWAY, GONE, FULL, TOO_LONG])
def test_a_reason_that_the_route_does_not_name_takes_no_other_model(
    prospect: Prospect,
) -> None:
    route = ModelRoute(name="a", models=("big", "small"), when=())

    assert chosen(prospect, WELL, route) == Choice("big")


@pytest.mark.parametrize(
    ("big", "small", "model"),
    [
        (FULL, FULL, "big"),
        (GONE, FULL, "small"),
        (GONE, AWAY, "small"),
        (TOO_LONG, FULL, "small"),
        (TOO_LONG, GONE, "big"),
        (GONE, GONE, "big"),
    ],
)
def test_where_each_has_a_reason_the_first_that_can_serve_at_all_answers(
    big: Prospect, small: Prospect, model: str
) -> None:
    choice = chosen(big, small)

    assert (choice.model, choice.last) == (model, True)
    assert [each.model for each in choice.skipped] == ["big", "small"]


def test_a_model_that_failed_a_request_is_not_asked_again_by_it() -> None:
    failed = Skipped("big", "away", "is away: its engines failed this request")

    choice = choose(ROUTE, {"small": FULL}.__getitem__, {"big": failed})

    assert (choice.model, choice.skipped[0]) == ("small", failed)


def test_an_alias_is_decided_without_a_look() -> None:
    alias = ModelRoute(name="gpt-4", models=("big",))

    def look(model: str) -> Prospect:
        raise AssertionError(model)

    assert choose(alias, look) == Choice("big")


def test_away_is_named_before_full() -> None:
    both = Prospect(away="is away", full="is full")

    assert against(ROUTE, "big", both) == Skipped("big", "away", "is away")


def test_how_long_a_load_takes_is_known_only_while_it_loads_or_is_absent() -> None:
    def seconds(**changes: Any) -> float:
        return load_left(structs.replace(an_engine(state="absent"), **changes))

    assert seconds(load_seconds=8.0) == 8.0
    assert seconds(load_seconds=8.0, progress=0.75, state="loading") == 2.0
    assert seconds() == float("inf")
    assert seconds(load_seconds=8.0, state="failed") == float("inf")


def test_a_route_is_listed_as_a_model_with_what_its_models_can() -> None:
    models = {
        "big": {"abilities": ["chat"], "context": 512, "slots": 1, "nodes": ["gpu"]},
        "small": {"abilities": ["chat", "tools"], "context": 4096, "slots": 2},
    }

    found = listed((ROUTE, ModelRoute(name="none", models=("gone",))), models)

    assert list(found) == ["assistant"]
    assert found["assistant"] == {
        "id": "assistant",
        "object": "model",
        "created": 0,
        "owned_by": "edgeserve",
        "route": ("big", "small"),
        "nodes": ["gpu"],
        "abilities": ["chat", "tools"],
        "context": 4096,
        "slots": 3,
    }


@pytest.mark.parametrize(
    ("states", "state"),
    [(("available", "loading"), "loading"), (("available", "loaded"), "loaded")],
)
def test_a_listed_route_has_the_best_state_of_its_models(
    states: tuple[str, str], state: str
) -> None:
    models = {"big": {"state": states[0]}, "small": {"state": states[1]}}

    assert listed((ROUTE,), models)["assistant"]["state"] == state


def a_cascade(**fields: Any) -> dict[str, Any]:
    return {"name": "a", "cascade": ["small", "big"], **fields}


@pytest.mark.parametrize("route", [ROUTE, route_from(a_cascade(hold_tokens=3))])
def test_what_is_shown_of_a_route_makes_it_again(route: ModelRoute) -> None:
    assert route_from(route.shown()) == route


def a_table(**fields: Any) -> dict[str, Any]:
    return {"name": "a", "models": ["big"], **fields}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (a_table(modles=["b"]), "unknown key `modles`; did you mean `models`?"),
        (a_table(name=None), "`name` must be a model's name, not None"),
        (a_table(name=" "), "`name` must be a model's name, not ' '"),
        (a_table(name="small:*"), "no `*`"),
        (a_table(name="a\nb"), "printable"),
        (a_table(models=[]), "`models` must be a list of models' names, not []"),
        (a_table(models="big"), "`models` must be a list of models' names"),
        (a_table(models=["big", 3]), "`models` must be a model's name, not 3"),
        (a_table(models=["big", "BIG"]), "`models` names one twice: big, big"),
        (a_table(models=[f"m{n}" for n in range(17)]), "the limit is 16"),
        (a_table(when="away"), "`when` must be a list of away, full, too-long"),
        (a_table(when=["awai"]), "can have away, full, too-long; did you mean 'away'?"),
        (a_table(when=[["away"]]), "`when` has ['away']"),
        (a_table(cascade=["a", "b"]), "`models` and `cascade` exclude each other"),
        (a_table(hold_tokens=3), "`hold_tokens` needs a `cascade` instead of `models`"),
        (a_cascade(cascade=["a"]), "`cascade` must name two models, the small one"),
        (a_cascade(hold_tokens=0), "a number of tokens, 1 to 4096, not 0"),
        (a_cascade(hold_tokens=2.0), "a number of tokens, 1 to 4096, not 2.0"),
        (a_cascade(min_mean_logprob=0), "a number below 0, not 0"),
        (a_table(full_seconds=0), "a number of seconds above 0, not 0"),
        (a_table(full_seconds=True), "a number of seconds above 0, not True"),
        (a_table(full_seconds=float("nan")), "a number of seconds above 0, not nan"),
    ],
)
def test_a_wrong_route_is_told_in_a_sentence(table: dict[str, Any], said: str) -> None:
    with pytest.raises(WrongRoute) as caught:
        route_from(table)

    assert said in str(caught.value)


def test_names_of_a_route_are_in_normal_spelling() -> None:
    route = route_from(a_table(name="GPT-4", models=["Big.gguf", "small:q4_0"]))

    assert (route.name, route.models) == ("gpt-4", ("big", "small:Q4_0"))


def test_a_route_names_no_other_route_but_may_have_the_name_of_its_model() -> None:
    shadow = ModelRoute(name="big", models=("big", "small"))
    chain = ModelRoute(name="b", models=("assistant",))

    assert collision((shadow,)) == ""
    assert "route b names assistant, which is a route" in collision((ROUTE, chain))
    assert "route b names assistant" in collision((chain, ROUTE))
    assert collision((ROUTE, ROUTE)) == "two routes are called assistant"
