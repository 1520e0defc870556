import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.endpoint import FakeEndpoint, fake_endpoint
from tests.fakes.terminal import Terminal

NODES = "/edgeserve/v1/nodes"


def a_node(name: str = "pi", **changes: Any) -> dict[str, Any]:
    report = {
        "name": name,
        "engines": [],
        "hardware": {
            "memory": {"total": 8 * 2**30, "available": 3 * 2**30},
            "thermal": {"celsius": 61.2},
        },
    }
    node = {"state": "up", "url": "http://pi:8090", "source": "mdns"}
    return {**node, "report": {**report, **changes}}


def an_engine(id_: str = "small:Q4_1", **changes: Any) -> dict[str, Any]:
    return {"id": id_, "state": "ready", "slots": 4, "busy": 1, **changes}


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEndpoint]:
    with fake_endpoint({NODES: [], "/v1/models": {"data": []}}) as running:
        monkeypatch.setenv("EDGESERVE_URL", running.url)
        yield running


def cells(out: str) -> list[list[str]]:
    return [line.split() for line in out.splitlines()]


def test_below_a_node_is_a_line_for_each_engine(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    engines = [an_engine(), an_engine("big:Q8_0", state="failed", reason="no memory")]
    running.answers[NODES] = [a_node(engines=engines)]

    seen = edgeserve("nodes")

    row, *below = seen.out.splitlines()[1:]
    assert row.split() == ["pi", "up", "http://pi:8090", "3.0", "of", "8.0", "61", "°C"]
    assert below == [
        "  small:Q4_1: 1 of 4 slots busy",
        "  big:Q8_0: failed (no memory)",
    ]


def test_a_group_is_one_engine_with_its_members(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    members = [
        {"name": name, "share": share, "state": state}
        for name, share, state in (("pi", 0.25, "up"), ("nuc", 0.75, "lost"))
    ]
    lost = an_engine("big:Q8_0", state="failed", reason="nuc is lost", group=members)
    head = a_node(engines=[an_engine(group=members), lost])
    given = {"head": "x", "variant": "small:Q4_1", "memory": 2**31}
    head["report"]["workers"] = [given]
    running.answers[NODES] = [head]

    _, *below = edgeserve("nodes").out.splitlines()[1:]

    together = "a group: pi 25 %, nuc 75 % (lost)"
    assert below == [
        f"  small:Q4_1: 1 of 4 slots busy; {together}",
        f"  big:Q8_0: failed (nuc is lost); {together}",
        "  computes for a group of small:Q4_1: 2.0 GiB",
    ]


def test_pulls_that_go_on_are_shown_with_how_far_they_are(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    size = {"file": "a.gguf", "done": 20 * 2**20, "total": 109 * 2**20}
    pulls = [
        {"source": "org/a", "state": "fetching", "step": "downloading", **size},
        {"source": "org/b", "state": "waiting", "step": "attic fetches it"},
        {"source": "org/c", "state": "waiting", "step": ""},
        {"source": "org/d", "state": "done", "step": "", **size},
    ]
    running.answers[NODES] = [a_node(pulls=pulls)]

    assert edgeserve("nodes").out.splitlines()[2:] == [
        "  pulls org/a: 20 of 109 MiB of a.gguf",
        "  pulls org/b: waiting (attic fetches it)",
        "  pulls org/c: waiting",
    ]


def test_what_loads_on_demand_is_one_line_and_what_is_not_as_desired_another(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    engines = [an_engine("a", state="absent"), an_engine("b", state="absent")]
    unmet = {"model": "c", "reason": "does not fit", "remedy": "unpin d"}
    running.answers[NODES] = [a_node(engines=[an_engine(), *engines], unmet=[unmet])]

    assert edgeserve("nodes").out.splitlines()[2:] == [
        "  small:Q4_1: 1 of 4 slots busy",
        "  on demand: a, b",
        "  c: does not fit; unpin d",
    ]


def test_a_node_that_never_answered_is_shown_without_a_name(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    running.answers[NODES] = [{**a_node(), "state": "unreachable", "report": None}]

    assert cells(edgeserve("nodes").out)[1] == ["?", "unreachable", "http://pi:8090"]


def test_why_a_node_is_of_no_use_is_shown(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    trouble = {"state": "unreachable", "problem": "it has another fleet token"}
    silent, known = {**a_node(), "report": None}, a_node()
    running.answers[NODES] = [{**silent, **trouble}, {**known, **trouble}]

    assert edgeserve("nodes").out.count("it has another fleet token") == 2


@pytest.mark.parametrize(
    ("health", "said"),
    [("open", "busy; keeps failing, set aside\n"), ("probation", "slots busy\n")],
)
def test_an_engine_that_fails_is_marked_and_a_new_one_is_not(
    health: str, said: str, edgeserve: Terminal, running: FakeEndpoint
) -> None:
    node = a_node(engines=[an_engine()])
    running.answers[NODES] = [{**node, "health": {"small:Q4_1": health}}]

    assert said in edgeserve("nodes").out


PLACES = (
    "http://172.17.0.1:8090",
    "http://192.168.178.20:8090",
    "http://[fd00::1]:8090",
)


def test_a_node_of_another_fleet_fits_the_terminal_with_its_name_and_the_reason(
    edgeserve: Terminal, running: FakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    problem = "; ".join(f"{each} does not accept our fleet token" for each in PLACES)
    silent = {"state": "unreachable", "problem": problem, "report": None}
    seen_as = ["kitchen 1f0c9a3e._edgeserve._tcp.local."]
    where = ", ".join(PLACES)
    running.answers[NODES] = [{**silent, "url": where, "seen_as": seen_as}]

    _, row, *below = edgeserve("nodes").out.splitlines()

    assert row.startswith(f"kitchen 1f0c9a3e  unreachable  {PLACES[0]}")
    assert max(map(len, (row, *below))) <= 80
    assert " ".join(" ".join(below).split()) == problem


def test_what_a_node_cannot_serve_is_shown(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    running.answers[NODES] = [a_node(problems=["x.gguf is truncated"])]

    assert "x.gguf is truncated" in edgeserve("nodes").out


def test_a_model_without_an_engine_is_shown_with_its_remedy(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    known = {"variant": "x:Q8_0", "reason": "needs 9 GB", "remedy": "a smaller one"}
    other = {"variant": "y:F16", "reason": "is not named", "remedy": "name it"}
    problems = ["x.gguf: needs 9 GB"]
    running.answers[NODES] = [a_node(problems=problems, available=[known, other])]

    shown = edgeserve("nodes").out

    assert shown.count("needs 9 GB") == 1
    assert "y:F16: not served (is not named; name it)" in shown


def test_a_name_from_the_network_cannot_steer_the_terminal(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    running.answers[NODES] = [a_node("\x1b[2J[red]pi")]

    assert "?[2J[red]pi" in edgeserve("nodes").out


@pytest.mark.parametrize(
    ("command", "hint"),
    [("nodes", "edgeserve node start"), ("models", "edgeserve nodes")],
)
def test_an_empty_fleet_says_what_to_do(
    command: str, hint: str, edgeserve: Terminal, running: FakeEndpoint
) -> None:
    seen = edgeserve(command)

    assert (seen.status, seen.out) == (0, "")
    assert hint in seen.err
    assert running.asked


@pytest.mark.parametrize(
    ("command", "path"), [("nodes", NODES), ("models", "/v1/models")]
)
def test_scripts_get_the_balancers_json(
    command: str, path: str, edgeserve: Terminal, running: FakeEndpoint
) -> None:
    seen = edgeserve(command, "--json")

    assert json.loads(seen.out) == running.answers[path]


def test_an_answer_of_another_shape_is_one_sentence(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    running.answers["/v1/models"] = {"models": []}

    seen = edgeserve("models")

    assert seen.status == 1
    assert "not like an edgeserve balancer" in seen.err
