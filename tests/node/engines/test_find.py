from pathlib import Path

import pytest

from edgeserve.config.settings import NodeSettings
from edgeserve.errors import EngineUnavailable
from node.engines import find
from node.engines.bundled import Bundled
from node.engines.native import Native


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with the wheel, and nothing on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(find, "bundled", lambda: Bundled("b1"))
    return tmp_path


def llama_server(folder: Path, script: str) -> Path:
    path = folder / "llama-server"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


WORKS = "echo 'version: 7 (beef123)'"


def test_without_a_native_one_the_bundled_one_is_used(machine: Path) -> None:
    assert find.find_engine(NodeSettings(state_dir=machine)).kind == "bundled"


def test_a_native_one_is_preferred(machine: Path) -> None:
    path = llama_server(machine / "bin", WORKS)

    found = find.find_engine(NodeSettings(state_dir=machine))

    assert found == Native(path, "beef123-cpu")


def test_a_native_one_that_does_not_run_is_passed_over(machine: Path) -> None:
    llama_server(machine / "bin", "exit 1")

    assert find.find_engine(NodeSettings(state_dir=machine)).kind == "bundled"


def test_a_named_one_that_does_not_run_is_an_error(machine: Path) -> None:
    settings = NodeSettings(state_dir=machine, llama_server=machine / "none")

    with pytest.raises(EngineUnavailable, match="No such file"):
        find.find_engine(settings)


def test_native_only_means_native_only(machine: Path) -> None:
    with pytest.raises(EngineUnavailable, match="no llama-server here or on PATH"):
        find.find_engine(NodeSettings(state_dir=machine, engine="native"))


def test_bundled_only_means_bundled_only(machine: Path) -> None:
    llama_server(machine / "bin", WORKS)
    settings = NodeSettings(state_dir=machine, engine="bundled")

    assert find.find_engine(settings).kind == "bundled"
