"""A models folder with one model, and the settings of a node that follows it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import node.shelf
from edgeserve.config.settings import NodeSettings
from node.engines.process import free_port
from tests.fakes.gguf import a_model
from tests.fleet.llama_server import script
from tests.node.shelf.watched import EVERY


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node.shelf, "EVERY", EVERY)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_model(tmp_path_factory.mktemp("elsewhere") / "new-F16.gguf")


@pytest.fixture
def folder(tmp_path: Path, model: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copy(model, folder / "old-F16.gguf")
    return folder


@pytest.fixture
def settings(tmp_path: Path, folder: Path) -> NodeSettings:
    flags = ("--hold", str(tmp_path / "hold"))
    return NodeSettings(
        name="kitchen",
        port=free_port(),
        state_dir=tmp_path / "state",
        models_dir=folder,
        llama_server=script(tmp_path / "llama-server", *flags),
        slots=1,
        advertise=False,
    )
