"""A node with three models of one size, and memory for as many as a test says."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

import node.shelf
from edgeserve.config.settings import NodeSettings
from edgeserve.reports.hardware import Hardware, Memory
from node.engines.process import free_port
from node.lifecycle.running import RunningEngines
from node.planning.fit import SHARE
from tests.fakes.gguf import a_model
from tests.fleet.llama_server import script
from tests.node.shelf.watched import EVERY

NEED = 70 * 2**20
"""What an engine of one of the models takes, by plan; a little less."""


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node.shelf, "EVERY", EVERY)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_model(tmp_path_factory.mktemp("elsewhere") / "m.gguf")


@pytest.fixture
def folder(tmp_path: Path, model: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    for name in "abc":
        shutil.copy(model, folder / f"{name}-F16.gguf")
    return folder


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    """While this file exists, streams do not get on."""
    return tmp_path / "hold"


@pytest.fixture
def settings(tmp_path: Path, folder: Path, hold: Path) -> NodeSettings:
    program = script(tmp_path / "llama-server", "--hold", str(hold))
    # A model that is named `bad` does not load.
    lines = program.read_text().replace(
        "PYTHONPATH=",
        'case "$*" in *bad-F16*) echo "bad tensors"; exit 1; esac\nPYTHONPATH=',
        1,
    )
    program.write_text(lines)
    return NodeSettings(
        name="kitchen",
        port=free_port(),
        state_dir=tmp_path / "state",
        models_dir=folder,
        llama_server=program,
        slots=1,
        advertise=False,
    )


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the machine have memory for so many engines."""

    def limit(engines: int) -> None:
        free = int(NEED * (engines + 0.5) / SHARE)

        def hardware(self: RunningEngines) -> Hardware:
            memory = Memory(total=free, available=free)
            return msgspec.structs.replace(self._state.hardware.latest, memory=memory)

        monkeypatch.setattr(RunningEngines, "hardware", hardware)

    return limit
