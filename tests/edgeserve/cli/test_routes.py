from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.endpoint import FakeEndpoint, fake_endpoint
from tests.fakes.terminal import Terminal

ROUTES = "/edgeserve/v1/routes"


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEndpoint]:
    with fake_endpoint({ROUTES: [], f"{ROUTES}/assistant": {}}) as running:
        monkeypatch.setenv("EDGESERVE_URL", running.url)
        yield running


def test_a_route_is_set_with_its_models_and_reasons(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    words = ("--when", "away,full", "--full-seconds", "2.5")
    seen = edgeserve("route", "set", "assistant", "big", "small", *words)

    assert (seen.status, running.methods) == (0, ["PUT"])
    assert running.said(f"{ROUTES}/assistant") == [
        {"models": ["big", "small"], "when": ["away", "full"], "full_seconds": 2.5}
    ]
    assert seen.out == "assistant is answered by big, else small\n"


def test_an_alias_needs_no_more_than_two_names(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    edgeserve("route", "set", "assistant", "small")

    (body,) = running.said(f"{ROUTES}/assistant")
    assert body == {
        "models": ["small"],
        "when": ["away", "full", "too-long"],
        "full_seconds": 10.0,
    }


def test_a_cascade_is_a_route_that_is_judged(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    words = ("--min-mean-logprob", "-0.8", "--when", "")
    edgeserve("route", "set", "assistant", "small", "big", *words)
    (body,) = running.said(f"{ROUTES}/assistant")
    running.answers[ROUTES] = [{"name": "assistant", "from": "set", **body}]

    seen = edgeserve("route", "list")

    assert body == {
        "cascade": ["small", "big"],
        "when": [],
        "full_seconds": 10.0,
        "min_mean_logprob": -0.8,
    }
    assert "small, big  unsure" in seen.out


def test_a_refusal_is_one_sentence(edgeserve: Terminal, running: FakeEndpoint) -> None:
    path = f"{ROUTES}/assistant"
    running.statuses[path] = 409
    running.answers[path] = {"error": {"message": "it is in the settings file"}}

    seen = edgeserve("route", "rm", "assistant")

    assert (seen.status, running.methods) == (1, ["DELETE"])
    assert "answers 409: it is in the settings file" in seen.err


def a_route(**changes: Any) -> dict[str, Any]:
    usual = {
        "name": "assistant",
        "models": ["big", "small"],
        "when": ["away"],
        "full_seconds": 10.0,
        "from": "file",
    }
    return {**usual, **changes}


def test_routes_are_listed_with_where_they_come_from(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    alias = a_route(name="gpt-4o", models=["small"], when=[])
    running.answers[ROUTES] = [a_route(), {**alias, "from": "set"}]

    lines = [line.split() for line in edgeserve("route", "list").out.splitlines()]

    assert lines[1] == ["assistant", "big,", "small", "away", "10", "s", "file"]
    assert lines[2] == ["gpt-4o", "small", "never", "10", "s", "here"]
