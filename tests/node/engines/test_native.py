import json
from pathlib import Path

import pytest

from edgeserve.errors import EngineUnavailable
from node.engines.native import Native, build_of, find, native
from tests.fakes.engines import a_spec


def a_program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("output", "build"),
    [
        ("version: 0.5.0-dev (build 1, commit 0c1e570)\nbuilt with GNU", "0c1e570"),
        ("version: 4321 (abc1234)\nbuilt with cc", "abc1234"),
        ("version: strange", "strange"),
        ("", "unknown"),
    ],
)
def test_the_build_is_the_commit(output: str, build: str) -> None:
    assert build_of(output) == build


def test_the_named_one_wins_then_the_one_built_here_then_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert find(None, tmp_path) is None

    on_path = a_program(tmp_path / "bin" / "llama-server", "")
    assert find(None, tmp_path) == on_path

    built = a_program(tmp_path / "engines" / "current" / "llama-server", "")
    assert find(None, tmp_path) == built
    assert find(Path("/mine"), tmp_path) == Path("/mine")


def test_a_program_that_runs_says_what_it_is(tmp_path: Path) -> None:
    path = a_program(tmp_path / "x", "echo 'version: 7 (beef123)' >&2")

    assert native(path) == Native(path, "beef123-cpu")


def test_builds_of_one_commit_differ_by_what_computes(tmp_path: Path) -> None:
    says = "echo 'version: 7 (beef123)'"
    gpu = "echo '  CUDA0: NVIDIA L4 (22565 MiB, 22000 MiB free)'"
    cpu = a_program(tmp_path / "cpu", says)
    cuda = a_program(tmp_path / "cuda", f"{says}; {gpu}; {gpu}")

    assert native(cpu).build == "beef123-cpu"
    assert native(cuda).build == "beef123-cuda"


def test_a_build_of_ours_is_known_by_its_manifest(tmp_path: Path) -> None:
    path = a_program(tmp_path / "llama-server", "echo 'version: 7 (beef123)'")
    made = {
        "name": "0c1e-cpu", "backend": "cpu", "commit": "0c1e", "version": "1",
        "flags": [], "compiler": "c++", "devices": [], "machine": "m", "source": "s",
        "jobs": 1, "seconds": 1.0, "made": "2026-11-22",
    }  # fmt: skip
    found = set[str]()
    for changes in ({}, {"flags": ["-DX"]}, {"compiler": "clang"}, {"name": "b"}):
        (tmp_path / "build.json").write_text(json.dumps({**made, **changes}))
        found.add(native(path).build)

    assert len(found) == 3  # the name alone changes nothing
    assert all(each.startswith("0c1e-cpu-") for each in found)


def test_one_too_old_to_list_its_devices_still_runs(tmp_path: Path) -> None:
    script = "[ $1 = --version ] || exit 1; echo 'version: 7 (beef123)'"

    assert native(a_program(tmp_path / "x", script)).build == "beef123-unknown"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo libgomp.so.1: cannot open >&2; exit 127", "apt-get install libgomp1"),
        ("echo illegal >&2; exit 3", "illegal"),
        ("exit 3", "status 3"),
    ],
)
def test_a_program_that_does_not_run_is_refused_with_what_to_do(
    script: str, said: str, tmp_path: Path
) -> None:
    path = a_program(tmp_path / "x", script)

    with pytest.raises(EngineUnavailable, match=said) as refused:
        native(path)

    assert "\n" not in str(refused.value)


def test_a_path_that_is_no_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="No such file"):
        native(tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(EngineUnavailable, match="Permission denied"):
        native(tmp_path / "text")


def test_the_key_travels_in_the_environment(tmp_path: Path) -> None:
    command = Native(tmp_path / "x", "b").command(a_spec(), port=1, api_key="secret")

    assert command.env == {"LLAMA_API_KEY": "secret"}
    assert "secret" not in " ".join(command.argv)
