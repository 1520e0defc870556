from pathlib import Path

import pytest

from edgeserve.errors import SettingsError
from quantize.imatrix import native_tool


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("EDGESERVE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.delenv("EDGESERVE_STATE_DIR", raising=False)
    monkeypatch.delenv("EDGESERVE_NODE_STATE_DIR", raising=False)
    (tmp_path / "config").mkdir()
    return tmp_path


def a_tool(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("section", ["", "[node]\n"])
def test_the_state_folder_of_the_settings_file_counts(
    config: Path, section: str
) -> None:
    built = a_tool(config / "elsewhere" / "engines" / "current" / "llama-bench")
    toml = f'{section}state_dir = "{config}/elsewhere"\n'
    (config / "config" / "edgeserve.toml").write_text(toml)

    assert native_tool("llama-bench") == built


def test_the_environment_wins_over_the_file(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = a_tool(config / "mine" / "engines" / "current" / "llama-bench")
    toml = f'state_dir = "{config}/elsewhere"\n'
    (config / "config" / "edgeserve.toml").write_text(toml)
    monkeypatch.setenv("EDGESERVE_STATE_DIR", str(config / "mine"))

    assert native_tool("llama-bench") == built


def test_without_a_build_what_is_on_path_will_do(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESERVE_STATE_DIR", str(config / "empty"))
    assert native_tool("llama-bench") is None

    on_path = a_tool(config / "bin" / "llama-bench")

    assert native_tool("llama-bench") == on_path


def test_a_broken_settings_file_is_one_sentence(config: Path) -> None:
    (config / "config" / "edgeserve.toml").write_text("state_dir = \n")

    with pytest.raises(SettingsError, match="is not TOML"):
        native_tool("llama-bench")
