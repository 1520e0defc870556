"""`edgeserve bench` measures any endpoint with OpenAI's API, and says what failed."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.endpoint import (
    MODELS,
    FakeEndpoint,
    Stream,
    chat_event,
    chat_stream,
    fake_endpoint,
)
from tests.fakes.terminal import Terminal

CHAT = "/v1/chat/completions"
FEW = ("--streams", "1,2", "--rounds", "2", "--prompt", "5", "--answer", "4")
USAGE = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 4}}


def answer() -> Stream:
    usage = b"data: %b\n\n" % json.dumps(USAGE).encode()
    return chat_stream("a", "b", end=(usage, b"data: [DONE]\n\n"))


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEndpoint]:
    with fake_endpoint({"/v1/models": MODELS, CHAT: answer()}) as running:
        monkeypatch.setenv("EDGESERVE_URL", running.url)
        yield running


def test_each_number_of_streams_is_a_row(
    edgeserve: Terminal, endpoint: FakeEndpoint
) -> None:
    seen = edgeserve("bench", *FEW)

    heads, *rows = seen.out.splitlines()
    assert seen.status == 0
    assert heads.split()[:2] == ["streams", "tok/s"]
    assert [row.split()[0] for row in rows] == ["1", "2"]
    assert len(endpoint.said(CHAT)) == 1 + 2 + 4  # one may have to load the model
    assert f"asking words at {endpoint.url}" in seen.err


def test_answers_have_the_length_that_is_asked_for(
    edgeserve: Terminal, endpoint: FakeEndpoint
) -> None:
    edgeserve("bench", *FEW)

    asked = endpoint.said(CHAT)[1:]
    assert {(each["max_tokens"], each["ignore_eos"]) for each in asked} == {(4, True)}
    prompts = [each["messages"][0]["content"] for each in asked]
    assert {len(each.split()) for each in prompts} == {5}
    assert len(set(prompts)) == len(prompts)


@pytest.mark.usefixtures("endpoint")
def test_the_usage_counts_and_not_the_events(
    edgeserve: Terminal, tmp_path: Path
) -> None:
    file = tmp_path / "bench.json"
    edgeserve("bench", *FEW, "--json", str(file))

    found: list[dict[str, Any]] = json.loads(file.read_text())
    assert [each["requests"] for each in found] == [2, 4]
    for each in found:
        tokens = each["tokens_per_second"] / each["written_per_second"]
        assert tokens == pytest.approx(11 / 4)


def test_two_endpoints_are_measured_in_turns(
    edgeserve: Terminal, endpoint: FakeEndpoint
) -> None:
    with fake_endpoint({"/v1/models": MODELS, CHAT: answer()}) as other:
        seen = edgeserve("bench", *FEW, "--compare", other.url, "--markdown")

    names = [line.split()[1] for line in seen.out.splitlines()[2:]]
    here, there = (each.url.removeprefix("http://") for each in (endpoint, other))
    assert names == [here, there, here, there]


def test_a_server_that_refuses_our_fields_is_asked_without_them(
    edgeserve: Terminal, endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeserve.cli.bench import load

    endpoint.statuses[CHAT] = 400
    endpoint.answers[CHAT] = {"detail": "Unexpected fields"}
    monkeypatch.setattr(load, "LONGEST_SECONDS", 5.0)
    seen = edgeserve("bench", *FEW)

    bodies = endpoint.said(CHAT)
    assert ["ignore_eos" in each for each in bodies] == [True, False]
    assert seen.status == 1
    assert "400" in seen.err
    assert "Unexpected fields" in seen.err


def test_a_refusal_is_said_as_a_sentence(
    edgeserve: Terminal, endpoint: FakeEndpoint
) -> None:
    endpoint.statuses[CHAT] = 404
    endpoint.answers[CHAT] = {"error": {"message": "no node serves 'x'", "param": None}}
    seen = edgeserve("bench", "--model", "x")

    assert seen.status == 1
    assert f"{endpoint.url}: 404: no node serves 'x'\n" in seen.err


def test_what_was_measured_before_an_interruption_is_kept(
    edgeserve: Terminal, endpoint: FakeEndpoint, tmp_path: Path
) -> None:
    def interrupted() -> list[bytes]:
        signal.raise_signal(signal.SIGINT)
        return [chat_event("a")]

    # Once: a second Ctrl-C ends it at once.
    given = iter([*[answer()] * 3, interrupted, *[answer()] * 3])
    endpoint.answers[CHAT] = lambda: next(given)()
    file = tmp_path / "bench.json"
    seen = edgeserve("bench", *FEW, "--json", str(file))

    assert seen.status == 1
    assert [row.split()[0] for row in seen.out.splitlines()] == ["streams", "1"]
    assert "stopped; measured until then:" in seen.err
    assert [each["streams"] for each in json.loads(file.read_text())] == [1]


def test_an_answer_that_fails_in_the_middle_is_named(
    edgeserve: Terminal, endpoint: FakeEndpoint
) -> None:
    broken = b'data: {"error": {"message": "the engine died"}}\n\n'
    breaks: Stream = lambda: [chat_event("a"), broken]  # noqa: E731
    given = iter([answer(), breaks, breaks, breaks])
    endpoint.answers[CHAT] = lambda: next(given)()
    seen = edgeserve("bench", "--streams", "1", "--rounds", "3")

    assert seen.status == 1
    assert "the engine died" in seen.err
    assert "no request was answered" in seen.err


def test_an_endpoint_without_a_chat_model_is_refused(
    edgeserve: Terminal, endpoint: FakeEndpoint
) -> None:
    endpoint.answers["/v1/models"] = {
        "data": [{"id": "e", "abilities": ["embeddings"]}]
    }
    seen = edgeserve("bench")

    assert seen.status == 1
    assert "lists no chat model; name one with --model" in seen.err


@pytest.mark.parametrize("streams", ["0", "a", "1,,2", "5000"])
def test_numbers_of_streams_are_checked(edgeserve: Terminal, streams: str) -> None:
    seen = edgeserve("bench", "--streams", streams)

    assert seen.status == 2
    assert "must be" in seen.err
