"""Where each platform keeps settings, state and models."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest
from platformdirs.macos import MacOS
from platformdirs.unix import Unix

from edgeserve.config.paths import (
    OURS,
    PLATFORMS,
    config_dir,
    models_dir,
    moved_by,
    state_dir,
)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for each in OURS + PLATFORMS:
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_linux_keeps_them_in_three_folders(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(platformdirs, "PlatformDirs", Unix)

    assert config_dir() == tmp_path / ".config/edgeserve"
    assert state_dir() == tmp_path / ".local/state/edgeserve"
    assert models_dir() == tmp_path / ".local/share/edgeserve/models"


def test_macos_keeps_them_in_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(platformdirs, "PlatformDirs", MacOS)
    home = tmp_path / "Library/Application Support/edgeserve"

    assert {config_dir(), state_dir()} == {home}
    assert models_dir() == home / "models"


def test_a_variable_moves_them_everywhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(platformdirs, "PlatformDirs", MacOS)
    monkeypatch.setenv("EDGESERVE_MODELS_DIR", str(tmp_path / "big"))

    assert models_dir() == tmp_path / "big"
    assert moved_by(models_dir()) == "EDGESERVE_MODELS_DIR"
    assert moved_by(state_dir()) is None
