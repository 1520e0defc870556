"""Where each platform keeps settings, state and models."""

from __future__ import annotations

import os
import re
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
    refuse_closed,
    state_dir,
)
from edgeserve.errors import SettingsError
from node.discovery.identity import Machine, identified
from tests.fakes.terminal import Terminal


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


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that this user may not enter, as the tests of root cannot have one."""
    folder, lstat = tmp_path / "closed", Path.lstat
    folder.mkdir()

    def refused(path: Path) -> os.stat_result:
        if path.parent == folder:
            raise PermissionError(13, "Permission denied")
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", refused)
    return folder


def test_a_state_folder_of_others_is_one_sentence_of_the_balancer(
    closed: Path, edgeserve: Terminal
) -> None:
    seen = edgeserve("balancer", "start", "--port", "0", "--state-dir", str(closed))

    assert seen.status == 2
    assert re.fullmatch(
        r".* user \d+ with group \d+ may not enter it; .* --state-dir.*\n", seen.err
    )


def test_a_state_folder_of_others_is_refused_by_a_node(closed: Path) -> None:
    with (
        pytest.raises(SettingsError, match=r"user \d+ with group \d+ .* --state-dir"),
        identified(closed, Machine()),
    ):
        pass


def test_a_state_folder_that_is_there_or_to_be_made_is_not_refused(
    tmp_path: Path,
) -> None:
    refuse_closed(tmp_path)
    refuse_closed(tmp_path / "to-be-made")
