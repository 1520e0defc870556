"""`edgeserve nodes log`, before a balancer that answers what a test wants."""

from collections.abc import Iterator
from typing import Any

import pytest

from edgeserve.cli.client import NoAnswer, endpoint
from edgeserve.cli.node_log import followed
from tests.fakes.endpoint import FakeEndpoint, fake_endpoint
from tests.fakes.terminal import Terminal

PATH = "/edgeserve/v1/nodes/pi/log"


def a_log(*texts: str, next: str = "a-1", dropped: int = 0) -> dict[str, Any]:  # noqa: A002 - as on the wire
    lines = [
        {"at": 1e9 + at, "level": "warning", "source": "node.shelf", "text": text}
        for at, text in enumerate(texts)
    ]
    return {"next": next, "lines": lines, "dropped": dropped}


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEndpoint]:
    monkeypatch.setenv("TZ", "UTC")
    with fake_endpoint({PATH: a_log("small: failed to load")}) as running:
        monkeypatch.setenv("EDGESERVE_URL", running.url)
        yield running


@pytest.mark.usefixtures("running")
def test_each_line_has_its_time_level_and_module(edgeserve: Terminal) -> None:
    seen = edgeserve("nodes", "log", "pi")

    assert seen.status == 0
    assert seen.out.splitlines()[0].endswith(
        " WARNING node.shelf: small: failed to load"
    )


def test_the_last_lines_are_shown_and_what_is_missing_is_said(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    running.answers[PATH] = a_log("one", "two", "three", dropped=4)

    some = edgeserve("nodes", "log", "pi", "-n", "2").out
    every = edgeserve("nodes", "log", "pi").out

    assert [line.split()[-1] for line in some.splitlines()] == ["two", "three"]
    assert every.splitlines()[0] == "(4 earlier lines are no longer kept)"


def test_a_line_cannot_change_the_terminal(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    running.answers[PATH] = a_log("a\x1b[2Jb")

    assert edgeserve("nodes", "log", "pi").out.endswith("a?[2Jb\n")


def test_a_node_without_a_line_is_no_silence(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    running.answers[PATH] = a_log()

    assert "has logged nothing" in edgeserve("nodes", "log", "pi").err


def test_following_asks_for_what_is_new_and_outlives_a_node_that_is_away(
    running: FakeEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    away = {"error": {"message": "pi is not reached"}}
    later = [
        ("a-1", away, 502),
        ("a-1", away, 502),
        ("a-1", a_log("it is back", next="b-1"), 200),
        ("b-1", {"error": {"message": "no node 'pi'"}}, 404),
    ]

    def sleep(_: float) -> None:
        after, answer, status = later.pop(0)
        running.answers[f"{PATH}?after={after}"] = answer
        running.statuses[f"{PATH}?after={after}"] = status

    lines = followed(endpoint(running.url, None), PATH, "a-1", sleep)

    assert next(lines).endswith("it is back")
    with pytest.raises(NoAnswer, match="no node 'pi'"):
        next(lines)
    assert capsys.readouterr().err.count("pi is not reached; trying again") == 1
