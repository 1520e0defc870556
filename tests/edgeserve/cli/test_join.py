"""`edgeserve join` and the commands of `edgeserve nodes`, as seen at a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeserve.config.paths import admin_key_file
from tests.fakes.endpoint import FakeEndpoint, fake_endpoint
from tests.fakes.terminal import Terminal

NODES = "/edgeserve/v1/nodes"
JOIN = "/edgeserve/v1/join"
ID = "11" * 16
KEY = "admin-key-of-this-machine"
TOKEN = "fleet-token-of-the-tests"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGESERVE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("EDGESERVE_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "state").mkdir()
    return tmp_path


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[FakeEndpoint]:
    asking = {
        "id": ID,
        "name": "pi",
        "state": "asking",
        "url": "https://10.0.0.9:8090",
        "problem": "asks to join, code 123-456",
        "code": "123-456",
        "report": None,
    }
    done = {"id": ID, "name": "pi"}
    actions = {f"{NODES}/{name}/{do}": done for name in ("pi", "a%20b") for do in
               ("approve", "deny", "revoke", "allow")}  # fmt: skip
    other = {**asking, "id": "2" * 32, "name": "a b"}
    with fake_endpoint({NODES: [asking, other], **actions, JOIN: {}}) as running:
        port = int(running.url.rpartition(":")[2])
        admin_key_file(home / "state", port).write_text(f"{KEY}\n")
        monkeypatch.setenv("EDGESERVE_URL", running.url)
        yield running


def test_a_machine_that_asks_is_listed_with_its_code(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    out = edgeserve("nodes").out

    assert "pi" in out
    assert "asks to join, code 123-456" in out
    assert running.asked


@pytest.mark.parametrize("name", ["pi", ID, ID[:8]])
def test_approval_shows_the_code_and_sends_it_with_the_key_of_this_machine(
    name: str, edgeserve: Terminal, running: FakeEndpoint
) -> None:
    running.answers[f"{NODES}/{name}/approve"] = {}
    seen = edgeserve("nodes", "approve", name, typed="y\n")

    assert seen.status == 0, seen
    assert "123-456" in seen.out
    path, headers, body = running.asked[-1]
    assert (path, body) == (f"{NODES}/{name}/approve", {"code": "123-456"})
    assert {k.lower(): v for k, v in headers.items()}["authorization"] == (
        f"Bearer {KEY}"
    )


def test_without_a_yes_nothing_is_approved(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    seen = edgeserve("nodes", "approve", "pi", typed="n\n")

    assert seen.status == 1
    assert "nodes deny pi" in seen.err
    assert [path for path, _, _ in running.asked] == [NODES]


def test_names_that_mean_no_machine_or_several_are_said(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    for action in ("approve", "deny"):
        said = edgeserve("nodes", action, "nuc").err
        assert said == "edgeserve: no node 'nuc' asks to join; there are: pi, a b\n"
    running.answers[NODES] *= 2
    assert "several machines" in edgeserve("nodes", "approve", "pi").err


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("deny", "sent away"),
        ("revoke", "token rotate --keep-hours 0"),
        ("allow", "may join again"),
    ],
)
def test_each_command_asks_the_balancer_and_says_what_follows(
    action: str, said: str, edgeserve: Terminal, running: FakeEndpoint
) -> None:
    for name, path in (("pi", "pi"), ("a b", "a%20b")):
        seen = edgeserve("nodes", action, name)

        assert (seen.status, running.asked[-1][0]) == (0, f"{NODES}/{path}/{action}")
        assert said in " ".join(seen.out.split())


def test_an_option_before_the_command_counts(
    edgeserve: Terminal, running: FakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGESERVE_URL")

    assert edgeserve("nodes", "--url", running.url, "deny", "pi").status == 0
    assert running.asked


def test_a_machine_with_a_token_does_not_join(
    edgeserve: Terminal, running: FakeEndpoint, home: Path
) -> None:
    (home / "config").mkdir()
    (home / "config" / "token").write_text(TOKEN)

    seen = edgeserve("join", running.url, "--yes")

    assert seen.status == 1
    assert "belongs to a fleet already" in seen.err
    assert running.asked == []


def test_without_a_terminal_join_needs_a_yes(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    assert "--yes" in edgeserve("join", running.url).err
    assert running.asked == []


@pytest.mark.parametrize(
    "url", ["192.168.1.20", "nuc:8080", "ftp://nuc", "http://", "http://nuc:x"]
)
def test_what_is_no_url_is_said(url: str, edgeserve: Terminal) -> None:
    seen = edgeserve("join", url, "--yes", "--port", "0")

    assert seen.status == 2
    assert url in seen.err


def test_a_refusal_is_passed_on(edgeserve: Terminal, running: FakeEndpoint) -> None:
    running.statuses[JOIN] = 409
    running.answers[JOIN] = {"error": {"message": "start it with --approve"}}

    seen = edgeserve("join", running.url, "--yes", "--port", "0")

    assert seen.status == 1
    assert seen.err.endswith("refuses: start it with --approve\n")


def test_another_server_is_no_balancer(
    edgeserve: Terminal, running: FakeEndpoint
) -> None:
    running.statuses[JOIN] = 404

    assert (
        "no edgeserve balancer"
        in edgeserve("join", running.url, "--yes", "--port", "0").err
    )


def test_where_nothing_answers_that_is_said(edgeserve: Terminal) -> None:
    seen = edgeserve("join", "http://127.0.0.1:9", "--yes", "--port", "0")

    assert seen.status == 1
    assert "no balancer answers at http://127.0.0.1:9" in seen.err


@pytest.mark.parametrize(("typed", "stored"), [("y\n", True), ("n\n", False)])
def test_the_token_is_stored_where_both_codes_were_equal(
    typed: str,
    stored: bool,
    edgeserve: Terminal,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "edgeserve.cli.join._asked", lambda _url, _settings: (TOKEN, "123-456")
    )

    seen = edgeserve("join", "http://nuc:8080", "--port", "8091", typed=typed)

    file = home / "config" / "token"
    assert "123-456" in seen.out
    assert (seen.status == 0, file.exists()) == (stored, stored)
    if stored:
        assert file.read_text() == f"{TOKEN}\n"
        assert file.stat().st_mode & 0o777 == 0o600
        assert seen.out.endswith("Now: edgeserve node start --port 8091\n")
