from __future__ import annotations

from pathlib import Path

import pytest

import node.shelf
from tests.fakes.gguf import a_model
from tests.node.shelf.watched import EVERY


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node.shelf, "EVERY", EVERY)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_model(tmp_path_factory.mktemp("elsewhere") / "big.gguf")
