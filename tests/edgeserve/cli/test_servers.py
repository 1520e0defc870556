from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.fakes.endpoint import FakeEndpoint, fake_endpoint
from tests.fakes.terminal import Terminal

SERVERS = "/edgeserve/v1/servers"
GPU = "http://gpu:8000"
KEY = "a-key-that-is-nowhere-to-be-seen"


def a_server(**changes: Any) -> dict[str, Any]:
    model = {"id": "Qwen/Small", "model": "Small", "context": 2048}
    usual: dict[str, Any] = {
        "id": "0123",
        "name": "gpu:8000",
        "url": GPU,
        "kind": "vllm",
        "state": "up",
        "problem": None,
        "models": [model | {"abilities": ["chat", "tools"]}],
        "width": 64,
        "running": 3,
        "assumed": ["64 assumed (`width`)"],
        "key": False,
        "last_resort": False,
        "from": "added",
    }
    return usual | changes


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEndpoint]:
    with fake_endpoint({SERVERS: a_server()}) as running:
        monkeypatch.setenv("EDGESERVE_URL", running.url)
        yield running


def test_a_server_is_added_by_its_url_and_what_was_found_out_is_shown(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    seen = edgeserve("servers", "add", GPU)

    assert (seen.status, running.methods) == (0, ["POST"])
    assert running.said(SERVERS) == [{"url": GPU, "kind": "auto"}]
    lines = [line.split() for line in seen.out.splitlines()]
    assert lines[1] == ["gpu:8000", "up", "vllm", GPU, "3", "of", "64", "here"]
    assert "Qwen/Small: 2048 tokens; chat, tools" in seen.out
    assert "64 assumed (`width`)" in seen.out


def test_a_key_is_read_from_its_file_and_shown_nowhere(
    edgeserve: Terminal, running: FakeEndpoint, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    (tmp_path / "ca").write_text("-----BEGIN CERTIFICATE-----\n")
    files = ("--key-file", str(tmp_path / "key"), "--ca-file", str(tmp_path / "ca"))
    more = ("--model", "a", "--model", "b", "--ability", "chat", "--last-resort")
    seen = edgeserve("servers", "add", GPU, "--width", "4", *files, *more)

    (body,) = running.said(SERVERS)
    assert (body["key"], body["ca"][:10]) == (KEY, "-----BEGIN")
    assert (body["models"], body["abilities"]) == (["a", "b"], ["chat"])
    assert (body["width"], body["last_resort"]) == (4, True)
    assert KEY not in seen.out + seen.err


def test_a_file_that_is_not_there_or_empty_is_said_before_anything_is_sent(
    edgeserve: Terminal, running: FakeEndpoint, tmp_path: Path
) -> None:
    (tmp_path / "empty").write_text("\n")
    none = edgeserve("servers", "add", GPU, "--key-file", str(tmp_path / "none"))
    empty = edgeserve("servers", "add", GPU, "--key-file", str(tmp_path / "empty"))

    assert (none.status, empty.status, running.methods) == (2, 2, [])
    assert "No such file" in none.err
    assert "is empty" in empty.err


def test_a_refusal_is_one_sentence(edgeserve: Terminal, running: FakeEndpoint) -> None:
    running.statuses[SERVERS] = 422
    running.answers[SERVERS] = {"error": {"message": f"not added: {GPU} hung up"}}

    seen = edgeserve("servers", "add", GPU)

    assert seen.status == 1
    assert f"answers 422: not added: {GPU} hung up" in seen.err


def test_servers_are_listed_with_where_they_come_from_and_what_is_wrong(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    away: dict[str, Any] = {"models": [], "width": 0, "assumed": [], "running": 0}
    away |= {"name": "pi", "state": "unreachable", "kind": "auto", "from": "settings"}
    away |= {"problem": "http://pi:1 did not answer", "last_resort": True}
    running.answers[SERVERS] = [a_server(), a_server(url="http://pi:1", **away)]

    seen = edgeserve("servers", "list")

    assert ["pi", "unreachable", "auto", "http://pi:1", "settings"] in [
        line.split() for line in seen.out.splitlines()
    ]
    assert "http://pi:1 did not answer" in seen.out
    assert "only where nothing else can serve" in seen.out


def test_a_server_is_removed_by_its_name_or_url(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    path = f"{SERVERS}/{quote(GPU, safe='')}"
    running.answers[path] = {"name": "gpu:8000", "url": GPU}

    seen = edgeserve("servers", "rm", GPU)

    assert (seen.status, running.methods) == (0, ["DELETE"])
    assert seen.out == "gpu:8000 gets no requests any more\n"
