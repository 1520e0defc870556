import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.endpoint import FakeEndpoint, fake_endpoint
from tests.fakes.terminal import Terminal

REQUESTS = "/edgeserve/v1/requests"


def a_candidate(node: str, *, chosen: bool = False, **parts: Any) -> dict[str, Any]:
    predicted = {
        "wait_seconds": 0.0,
        "ahead_seconds": 0.0,
        "read_seconds": 0.5,
        "write_seconds": 2.0,
        "first_token_seconds": 0.505,
        "cost_seconds": 0.9,
        "prompt_tokens": 1200,
        "cached_tokens": 1000,
        "exact": True,
    }
    return {
        "node": node,
        "engine": "small:Q4_1",
        "chosen": chosen,
        "reason": "costs least" if chosen else "costs more: 3.20 against 0.90 s",
        "predicted": {**predicted, **parts},
    }


def test_nobody_asks_for_fewer_than_one(edgeserve: Terminal) -> None:
    assert edgeserve("requests", "--last", "0").status == 2


def a_request(**changes: Any) -> dict[str, Any]:
    attempt = {
        "node": "gpu",
        "variant": "small:Q4_1",
        "outcome": "answered",
        "predicted": {
            "first_token_seconds": 0.505,
            "prompt_tokens": 1200,
            "cached_tokens": 1000,
            "tokens_per_second": 50.0,
        },
        "actual": {
            "first_token_seconds": 0.512,
            "prompt_tokens": 1198,
            "cached_tokens": 998,
            "tokens_per_second": 48.5,
        },
        "candidates": [
            a_candidate("pi", cost_seconds=3.2, exact=False),
            {**a_candidate("old"), "predicted": None, "reason": "its node is suspect"},
            a_candidate("gpu", chosen=True),
        ],
    }
    request = {
        "id": "req-1",
        "model": "small",
        "state": "done",
        "outcome": "answered",
        "waited_seconds": 0.0,
        "seconds": 12.345,
        "attempts": [attempt],
        "candidates": [],
    }
    return {**request, **changes}


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEndpoint]:
    answers = {REQUESTS: [a_request()], f"{REQUESTS}/req-1": a_request()}
    with fake_endpoint(answers) as running:
        monkeypatch.setenv("EDGESERVE_URL", running.url)
        yield running


def words(line: str) -> list[str]:
    return line.split()


@pytest.mark.usefixtures("running")
def test_requests_are_listed_with_predicted_and_actual_times(
    edgeserve: Terminal,
) -> None:
    _, row = edgeserve("requests").out.splitlines()

    times = ["0.000", "0.512", "0.505", "998", "of", "1198", "48.5", "12.3"]
    assert words(row) == ["req-1", "small:Q4_1", "gpu", "answered", *times]


def test_a_request_that_waits_is_listed_without_a_node(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    waiting = a_request(state="waiting", outcome=None, seconds=None, attempts=[])
    running.answers[REQUESTS] = [waiting]

    _, row = edgeserve("requests").out.splitlines()

    assert words(row) == ["req-1", "small", "waiting", "0.000"]


def test_only_the_last_ones_are_listed(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    running.answers[REQUESTS] = [a_request(id=f"req-{n}") for n in range(9)]

    seen = edgeserve("requests", "--last", "2")

    assert len(seen.out.splitlines()) == 3


def test_without_requests_a_hint_is_given(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    running.answers[REQUESTS] = []

    assert "edgeserve chat" in edgeserve("requests").err


@pytest.mark.usefixtures("running")
def test_why_shows_every_candidate_the_chosen_one_first(
    edgeserve: Terminal,
) -> None:
    lines = edgeserve("why", "req-1").out.splitlines()

    assert lines[0].startswith("req-1: small, answered")
    assert "   first token seconds: 0.505 predicted, 0.512" in lines
    assert "   cached tokens: 1000 predicted, 998" in lines
    chosen, other, out = lines[-3:]
    assert words(chosen)[:3] == ["gpu", "small:Q4_1", "0.900"]
    assert words(other)[:4] == ["pi", "small:Q4_1", "≥", "3.200"]
    assert words(out) == ["old", "small:Q4_1", "its", "node", "is", "suspect"]


def test_why_explains_a_request_that_has_gone_nowhere(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    waits = a_candidate("pi", wait_seconds=4.5)
    running.answers[f"{REQUESTS}/req-1"] = a_request(attempts=[], candidates=[waits])

    assert "4.500" in edgeserve("why", "req-1").out


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("command", [("requests",), ("why", "req-1")])
def test_scripts_get_json(edgeserve: Terminal, command: tuple[str, ...]) -> None:
    found = json.loads(edgeserve(*command, "--json").out)

    first = found[0] if isinstance(found, list) else found
    assert first["id"] == "req-1"


@pytest.mark.parametrize("command", [("requests",), ("why", "req-1")])
def test_a_stranger_is_not_taken_for_a_balancer(
    edgeserve: Terminal, running: FakeEndpoint, command: tuple[str, ...]
) -> None:
    running.answers |= {REQUESTS: [{}], f"{REQUESTS}/req-1": {}}

    assert "not like an edgeserve balancer" in edgeserve(*command).err
