"""`edgeserve models …`: what is loaded where, and orders about it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.endpoint import FakeEndpoint, fake_endpoint
from tests.fakes.terminal import Terminal

OWN = "/edgeserve/v1/models"
GIB = 2**30


def a_model(name: str = "small", state: str = "loaded", **fields: Any) -> Any:
    variant = {"name": f"{name}:Q4_1", "state": state, "memory": GIB}
    other = {"name": f"{name}:Q8_0", "state": "available", "memory": 2 * GIB}
    shown = {
        "id": name,
        "state": state,
        "nodes": ["pi"] if state == "loaded" else [],
        "loading": ["nuc"] if state == "loading" else [],
        "on_demand": ["box"],
        "abilities": ["chat"],
        "context": 4096,
        "slots": 2,
        "variants": [variant, other],
    }
    return {**shown, **fields}


def an_engine(state: str = "loading", **fields: Any) -> dict[str, Any]:
    engine = {"id": "small:Q4_1", "state": state, "slots": 2, "context": 4096}
    return {**engine, "reason": None, **fields}


def a_row(*engines: dict[str, Any], **fields: Any) -> dict[str, Any]:
    shown = [{"node": "pi", "report": each} for each in engines]
    row = {"model": "small", "engines": shown, "unplanned": [], "limits": []}
    return {**row, "desired": [], "problems": [], **fields}


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEndpoint]:
    with fake_endpoint({}) as running:
        monkeypatch.setenv("EDGESERVE_URL", running.url)
        monkeypatch.setattr("edgeserve.cli.models.loading.POLL_SECONDS", 0.01)
        yield running


def test_models_are_listed_with_their_states_and_variants(
    edgeserve: Terminal, running: FakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    loading = a_model("big", "loading", progress=0.4, abilities=["embeddings"])
    running.answers["/v1/models"] = {"data": [a_model(), loading]}

    _, small, big = edgeserve("models").out.splitlines()

    assert " ".join(small.split()) == "small loaded Q4_1, Q8_0 pi 1.0 to 2.0 chat"
    words = " ".join(big.split())
    assert words == "big loading 40 % Q4_1, Q8_0 nuc 1.0 to 2.0 embeddings"


def test_a_model_is_shown_with_limits_and_problems_to_admins(
    edgeserve: Terminal, running: FakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    absent = an_engine("absent", load_seconds=3.0, evicts=["x"], file="small.gguf")
    running.answers["/v1/models/small"] = a_model()
    running.answers[OWN] = [
        a_row(
            an_engine("ready", memory=GIB, slots=1, pinned=True),
            absent,
            limits=[{"model": "small", "min": 2, "max": None}],
            desired=[
                {
                    "node": "pi",
                    "model": "small",
                    "pinned": True,
                    "forbidden": False,
                    "keep_alive": 60.0,
                }
            ],
            problems=[
                {
                    "node": None,
                    "model": "small",
                    "reason": "only 1 can be loaded",
                    "remedy": "`edgeserve pull` elsewhere",
                }
            ],
        )
    ]

    lines = [
        " ".join(line.split())
        for line in edgeserve("models", "show", "small").out.splitlines()
    ]

    assert "state loaded" in lines
    assert "loads on box" in lines
    assert "variant small:Q8_0, available" in lines
    ready = "engine small:Q4_1 on pi: ready, pinned, 1 slot of 4096 tokens, 1.0 GiB"
    assert ready in lines
    assert (
        "engine small:Q4_1 on pi: on demand, 2 slots of 4096 tokens, small.gguf,"
        " loads in 3 s, x would leave for it" in lines
    )
    assert "limits small: min 2" in lines
    assert "desired small on pi: pinned, leaves after 60 idle seconds" in lines
    problem = "problem small: only 1 can be loaded; `edgeserve pull` elsewhere"
    assert problem in lines


def test_who_is_no_admin_sees_what_clients_see(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    running.answers["/v1/models/small"] = a_model()
    running.answers[OWN] = {"error": {"message": "this needs an admin key"}}
    running.statuses[OWN] = 403

    seen = edgeserve("models", "show", "small")

    assert seen.status == 0
    assert "loaded" in seen.out


def test_a_route_is_shown_with_its_models(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    route = a_model("assistant", route=["big", "small"])
    for absent in ("loading", "on_demand", "variants"):
        del route[absent]
    running.answers["/v1/models/assistant"] = route
    running.answers[OWN] = [a_row()]

    seen = edgeserve("models", "show", "assistant")

    assert (seen.status, seen.err) == (0, "")
    assert "stands for  big, else small" in seen.out


@pytest.mark.parametrize(("row", "status"), [([a_row()], 0), ([], 1)])
def test_a_model_that_cannot_be_called_is_shown_if_anything_is_known(
    row: list[Any], status: int, edgeserve: Terminal, running: FakeEndpoint
) -> None:
    running.answers["/v1/models/small"] = {"error": {"message": "no node serves it"}}
    running.statuses["/v1/models/small"] = 404
    running.answers[OWN] = row

    seen = edgeserve("models", "show", "small")

    assert seen.status == status
    assert ("no node serves it" in seen.err) == (not row)


class Loads:
    """The overview while a model loads: one state at each look."""

    def __init__(self, running: FakeEndpoint, *states: dict[str, Any]) -> None:
        self._states = list(states)
        told = {"model": "small:Q4_1", "node": "pi", "engine": an_engine()}
        running.answers[f"{OWN}/small/load"] = told
        running.statuses[f"{OWN}/small/load"] = 202
        running.answers[OWN] = self._next

    def _next(self) -> list[bytes]:
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        return [json.dumps([a_row(state)]).encode()]


def test_load_waits_until_the_model_is_loaded(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    late_news = an_engine("absent")
    Loads(running, late_news, an_engine(progress=0.5), an_engine("ready"))

    seen = edgeserve("models", "load", "small", "--node", "pi")

    assert seen.status == 0
    assert seen.out.startswith("small:Q4_1 on pi is loaded, after ")
    assert running.said(f"{OWN}/small/load") == [{"node": "pi", "drain": False}]
    assert len(running.said(OWN)) == 3


def test_a_load_that_fails_is_said_with_the_reason(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    Loads(running, an_engine(), an_engine("failed", reason="it crashed"))

    seen = edgeserve("models", "load", "small")

    assert seen.status == 1
    assert "small:Q4_1 on pi is not loaded, but failed: it crashed" in seen.err


def test_load_can_return_at_once_and_knows_what_is_loaded(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    Loads(running, an_engine())
    soon = edgeserve("models", "load", "small", "--no-wait")
    running.answers[f"{OWN}/small/load"] = {"node": "pi", "engine": an_engine("busy")}
    there = edgeserve("models", "load", "small")

    assert "small:Q4_1 on pi loads" in soon.out
    assert there.out == "small:Q4_1 on pi is loaded\n"
    assert running.said(OWN) == []


def test_unload_and_pin_say_where(edgeserve: Terminal, running: FakeEndpoint) -> None:
    left = [{"node": "pi", "engine": an_engine("leaving")}]
    running.answers[f"{OWN}/small/unload"] = {
        "model": "small",
        "unloaded": left,
        "refused": ["nuc: small is pinned"],
    }
    running.answers[f"{OWN}/small/pin"] = {
        "model": "small",
        "desired": {"pi": {}},
        "refused": [],
    }

    unloaded = edgeserve("models", "unload", "small")
    assert unloaded.out == "small:Q4_1 leaves pi\n"
    assert unloaded.err == "edgeserve: nuc: small is pinned\n"
    assert edgeserve("models", "pin", "small").out == "small is pinned to pi\n"
    off = edgeserve("models", "pin", "small", "--off", "--node", "pi")
    assert off.out == "small is no longer pinned to pi\n"
    assert running.said(f"{OWN}/small/pin")[-1] == {"node": "pi", "off": True}


@pytest.mark.parametrize(
    ("options", "body"),
    [
        ("--min 1 --max none", {"min": 1, "max": None}),
        ("--keep-alive 10m --node pi", {"keep_alive": 600.0, "node": "pi"}),
        ("--keep-alive never", {"keep_alive": 0.0}),
        ("--keep-alive default --allow", {"keep_alive": None, "forbidden": False}),
        ("--forbid", {"forbidden": True}),
    ],
)
def test_limit_sends_what_is_named_and_nothing_else(
    options: str, body: dict[str, Any], edgeserve: Terminal, running: FakeEndpoint
) -> None:
    desired = {"pinned": False, "forbidden": True, "keep_alive": 0.0}
    running.answers[f"{OWN}/small/limit"] = {
        "model": "small",
        "limits": {"min": 1, "max": None},
        "desired": {"pi": desired},
        "refused": [],
    }

    seen = edgeserve("models", "limit", "small", *options.split())

    assert running.said(f"{OWN}/small/limit") == [body]
    assert seen.out.splitlines() == [
        "small: at least 1 loaded in the fleet",
        "small on pi: forbidden, stays while idle",
    ]


def test_limit_says_nothing_of_the_fleet_where_nothing_is_set_for_it(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    running.answers[f"{OWN}/small/limit"] = {
        "model": "small",
        "limits": {"min": None, "max": None},
        "desired": {"pi": {"pinned": False, "forbidden": True, "keep_alive": None}},
        "refused": [],
    }

    forbidden = edgeserve("models", "limit", "small", "--forbid")
    lifted = edgeserve("models", "limit", "small", "--max", "none")

    assert forbidden.out == "small on pi: forbidden\n"
    assert lifted.out.startswith("small: any number loaded in the fleet\n")


@pytest.mark.parametrize(
    "options", ["", "--min few", "--max -1", "--keep-alive soon", "--keep-alive 0"]
)
def test_a_limit_that_is_none_is_refused_before_anything_is_asked(
    options: str, edgeserve: Terminal, running: FakeEndpoint
) -> None:
    seen = edgeserve("models", "limit", "small", *options.split())

    assert (seen.status, running.asked) == (2, [])
