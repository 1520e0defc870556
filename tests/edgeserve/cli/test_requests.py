import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from edgeserve.cli.requests import HEADS, clock
from tests.fakes.endpoint import FakeEndpoint, fake_endpoint
from tests.fakes.terminal import Terminal

REQUESTS = "/edgeserve/v1/requests"

NOON = datetime.now().astimezone().replace(hour=12, minute=4, second=31)


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


def test_fewer_than_one_request_cannot_be_asked_for(edgeserve: Terminal) -> None:
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
        "client": "192.168.1.23",
        "arrived_at": NOON.timestamp(),
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
    seen = edgeserve("requests").out

    front = ["12:04:31", "req-1", "192.168.1.23", "small:Q4_1", "gpu", "answered"]
    times = ["0.000", "0.512", "0.505", "998/1198", "48.5", "12.3"]
    assert words(seen)[len(HEADS) :] == [*front, *times]


@pytest.mark.parametrize("columns", ["80", "200"])
def test_no_name_is_broken_and_no_line_too_long(
    columns: str, edgeserve: Terminal, running: FakeEndpoint, monkeypatch: Any
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    names = {"id": f"req-{'a' * 16}", "client": "fd00:1234:5678::abcd:1"}
    variant = "qwen3-coder-30b-a3b-instruct-2507:UD-Q4_K_XL"
    (attempt,) = a_request()["attempts"]
    running.answers[REQUESTS] = [
        a_request(**names, attempts=[{**attempt, "variant": variant}])
    ]

    seen = edgeserve("requests").out

    assert max(map(len, seen.splitlines())) <= int(columns)
    assert {*names.values(), variant} <= set(words(seen))


def test_a_request_of_another_day_has_its_date() -> None:
    yesterday = (NOON - timedelta(days=1)).timestamp()

    assert clock(NOON.timestamp(), NOON.timestamp()) == "12:04:31"
    assert clock(yesterday, NOON.timestamp()).endswith(" 12:04")


def test_where_it_was_before_is_shown_below(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    (attempt,) = a_request()["attempts"]
    first = {**attempt, "node": "pi", "outcome": "it had no slot left"}
    running.answers[REQUESTS] = [a_request(attempts=[first, attempt])]

    seen = edgeserve("requests").out

    assert seen.splitlines()[-1] == "  before: pi: it had no slot left"


def test_a_route_is_shown_with_the_model_that_answers_and_why(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    routed = {"name": "assistant", "model": "small", "why": "big is away: loading"}
    request = a_request(model="assistant", route=routed)
    running.answers |= {REQUESTS: [request], f"{REQUESTS}/req-1": request}

    listed, why = edgeserve("requests").out, edgeserve("why", "req-1").out

    assert listed.splitlines()[-1] == "  route assistant: big is away: loading"
    line = "route assistant: small answers (big is away: loading)"
    assert line in why.splitlines()


def test_a_request_that_waits_is_listed_without_a_node(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    waiting = a_request(state="waiting", outcome=None, seconds=None, attempts=[])
    running.answers[REQUESTS] = [waiting]

    seen = edgeserve("requests").out

    assert words(seen)[-4:] == ["192.168.1.23", "small", "waiting", "0.000"]


def test_only_the_last_ones_are_listed(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    running.answers[REQUESTS] = [a_request(id=f"req-{n}") for n in range(9)]

    seen = edgeserve("requests", "--last", "2")

    assert words(seen.out).count("answered") == 2


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

    assert lines[0].startswith("req-1: small, answered, asked by 192.168.1.23 at 12:04")
    assert "   first token: 0.505 s predicted, 0.512 s measured" in lines
    assert "   of it cached: 1000 tokens predicted, 998 tokens measured" in lines
    assert "   speed: 50.0 tokens/s predicted, 48.5 tokens/s measured" in lines
    chosen, why, other, why_not, out, barred = lines[-6:]
    assert words(chosen)[:3] == ["gpu", "small:Q4_1", "0.900"]
    assert why == "  chosen: costs least"
    assert words(other)[:4] == ["pi", "small:Q4_1", "≥", "3.200"]
    assert why_not.startswith("  not chosen: costs more")
    assert words(out) == ["old", "small:Q4_1"]
    assert barred == "  not chosen: its node is suspect"


def test_why_never_shows_a_value_that_is_not_known(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    (attempt,) = a_request()["attempts"]
    actual = dict.fromkeys(attempt["actual"])
    under_way = {**attempt, "outcome": None, "actual": actual}
    unknown = a_request(
        state="running", outcome=None, seconds=None, model="", attempts=[under_way]
    )
    nowhere = a_request(state="waiting", outcome=None, seconds=None, attempts=[])
    running.answers |= {f"{REQUESTS}/req-1": unknown, f"{REQUESTS}/req-2": nowhere}

    seen = edgeserve("why", "req-1").out + edgeserve("why", "req-2").out

    assert "None" not in seen
    assert "1. gpu (small:Q4_1): under way" in seen
    assert "first token: 0.505 s predicted, not measured" in seen
    assert "No engine was looked at." in seen


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


@pytest.mark.parametrize(
    ("outcome", "seen"),
    [
        ("moved", "980 tokens of it came from pi in 0.080 s; 0.150 s predicted, and"),
        ("pi took longer than 2.0 s", "did not come from pi"),
    ],
)
def test_what_was_moved_to_a_slot_is_explained(
    outcome: str, seen: str, edgeserve: Terminal, running: FakeEndpoint
) -> None:
    (attempt,) = a_request()["attempts"]
    move = {
        "from": "pi", "to": "gpu", "tokens": 980, "predicted_seconds": 0.15,
        "read_anew_seconds": 12.0, "seconds": 0.08, "outcome": outcome,
    }  # fmt: skip
    moved = a_request(attempts=[{**attempt, "cache_move": move}])
    running.answers[f"{REQUESTS}/req-1"] = moved

    text = " ".join(edgeserve("why", "req-1").out.split())

    assert seen in text
    assert "12.0 s to read them anew" in text
    assert (outcome in text) is (outcome != "moved")
