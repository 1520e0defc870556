from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.discovery.identity import identified, this_machine
from tests.edgeserve.damage import EVERY_WAY, damage
from tests.fakes.endpoint import FakeEndpoint, fake_endpoint
from tests.fakes.gguf import a_model
from tests.fakes.terminal import Terminal

REMOVE = "/edgeserve/v1/models/tiny%3AF16/remove"
NODES = {
    "nodes": [
        {"name": "pi", "files": [{"path": "tiny-F16.gguf", "bytes": 2**20}]},
        {"name": "nuc", "files": [{"path": "t.gguf", "bytes": 0, "target": "/x"}]},
    ]
}


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_model(tmp_path_factory.mktemp("model") / "m.gguf")


@pytest.fixture
def folder(tmp_path: Path, model: Path) -> Path:
    folder = tmp_path / "models"
    (folder / "adopted/lmstudio/maker").mkdir(parents=True)
    shutil.copy(model, folder / "tiny-F16.gguf")
    (folder / "adopted/lmstudio/maker/theirs-F16.gguf").symlink_to(model)
    return folder


@pytest.fixture
def balancer() -> Iterator[FakeEndpoint]:
    with fake_endpoint({REMOVE: NODES}) as running:
        yield running


def rows(out: str) -> list[list[str]]:
    return [line.split() for line in out.splitlines()[1:]]


def test_here_lists_every_file_with_its_size_and_origin(
    edgeserve: Terminal, folder: Path
) -> None:
    (folder / "broken.gguf").write_bytes(b"x")
    (folder / "dead.gguf").symlink_to("/nowhere/at/all")

    seen = edgeserve("models", "--here")
    found = json.loads(edgeserve("models", "--here", "--json").out)

    assert "theirs:F16" in seen.out
    assert "LM Studio" in seen.out
    assert "broken.gguf: has only 1 bytes" in seen.err
    assert "/nowhere/at/all, which is gone" in seen.err
    assert [each["variant"] for each in found["models"]] == ["theirs:F16", "tiny:F16"]
    assert len(found["unusable"]) == 2


def test_an_empty_folder_says_how_models_come(edgeserve: Terminal) -> None:
    seen = edgeserve("models", "--here")

    assert (seen.status, seen.out) == (0, "")
    assert "models adopt" in seen.err


def test_what_would_go_is_shown_before_the_question(
    edgeserve: Terminal, balancer: FakeEndpoint
) -> None:
    rm = ("models", "rm", "tiny:F16", "--url", balancer.url)

    declined = edgeserve(*rm, typed="n\n")
    piped = edgeserve(*rm)
    agreed = edgeserve(*rm, typed="y\n")

    assert (declined.status, piped.status, agreed.status) == (1, 1, 0)
    assert rows(declined.out)[:2] == [
        ["pi", "tiny-F16.gguf", "1", "MiB"],
        ["nuc", "t.gguf", "a", "link"],
    ]
    assert "1 MiB came free" in agreed.out
    preview, final = {"node": "", "preview": True}, {"node": ""}
    assert balancer.said(REMOVE) == [preview, preview, preview, final]


def test_a_refusal_of_the_balancer_is_a_sentence(
    edgeserve: Terminal, balancer: FakeEndpoint
) -> None:
    balancer.statuses[REMOVE] = 409
    balancer.answers[REMOVE] = {"error": {"message": "pi: tiny:F16 is busy here"}}

    seen = edgeserve("models", "rm", "tiny:F16", "--url", balancer.url, "--yes")

    assert seen.status == 1
    assert "tiny:F16 is busy here" in seen.err


@pytest.mark.parametrize("answer", [{}, [], {"nodes": 3}, {"nodes": [{"name": "pi"}]}])
def test_an_odd_answer_is_a_sentence(
    answer: Any, edgeserve: Terminal, balancer: FakeEndpoint
) -> None:
    balancer.answers[REMOVE] = answer

    seen = edgeserve("models", "rm", "tiny:F16", "--url", balancer.url, "--yes")

    assert seen.status == 1
    assert "not like an edgeserve balancer" in seen.err


def test_here_it_removes_without_a_balancer(edgeserve: Terminal, folder: Path) -> None:
    unsure = edgeserve("models", "rm", "tiny", "--here")
    there = (folder / "tiny-F16.gguf").exists()
    removed = edgeserve("models", "rm", "tiny", "--here", typed="y\n")

    assert (unsure.status, there, removed.status) == (1, True, 0)
    assert not (folder / "tiny-F16.gguf").exists()


def test_here_an_adopted_model_loses_its_link_only(
    edgeserve: Terminal, folder: Path, model: Path
) -> None:
    seen = edgeserve("models", "rm", "theirs", "--here", "--yes")

    assert (seen.status, seen.out.splitlines()[-1]) == (0, "removed")
    assert not os.path.lexists(folder / "adopted")
    assert model.is_file()


def test_here_it_refuses_while_a_node_runs(
    edgeserve: Terminal, folder: Path, tmp_path: Path
) -> None:
    with identified(tmp_path / "state", this_machine()):
        seen = edgeserve("models", "rm", "tiny", "--here", "--yes")
    later = edgeserve("models", "rm", "tiny", "--here", "--yes")

    assert (seen.status, later.status) == (1, 0)
    assert "a node runs here" in seen.err
    assert not (folder / "tiny-F16.gguf").exists()


def test_here_and_a_node_exclude_one_another(edgeserve: Terminal) -> None:
    assert edgeserve("models", "rm", "x", "--here", "--node", "pi").status == 2


@pytest.mark.parametrize("way", EVERY_WAY)
@pytest.mark.parametrize("what", ["tiny-F16.gguf", ".", "adopted"])
def test_no_damage_here_is_a_traceback(
    what: str, way: str, edgeserve: Terminal, folder: Path, model: Path
) -> None:
    damage(folder / what, way)

    for command in (
        ("--here",),
        ("rm", "tiny-F16.gguf", "--here", "--yes"),
        ("adopt", str(model.parent), "--yes"),
    ):
        seen = edgeserve("models", *command)

        assert seen.status in (0, 1, 2)
        assert "Traceback" not in seen.out + seen.err
        assert seen.out + seen.err
