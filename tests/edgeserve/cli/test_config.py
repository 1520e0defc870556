import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.terminal import Terminal


def test_each_setting_is_shown_with_its_origin(
    edgeserve: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESERVE_NODE_SLOTS", "4")

    seen = edgeserve("config", "show")

    lines = [line.split() for line in seen.out.splitlines()]
    assert ["slots", "4", "environment", "EDGESERVE_NODE_SLOTS"] in lines
    assert ["port", "8080", "default"] in lines


def test_scripts_get_json(edgeserve: Terminal) -> None:
    seen = edgeserve("config", "show", "--section", "balancer", "--json")

    found = json.loads(seen.out)
    assert list(found) == ["balancer"]
    assert found["balancer"]["port"] == {"value": 8080, "origin": "default"}
    assert found["balancer"]["nodes"] == {"value": [], "origin": "default"}


def test_a_variable_with_a_typing_error_is_warned_of(
    edgeserve: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESERVE_NODE_SLTS", "4")

    seen = edgeserve("config", "show", "--section", "node", "--json")

    assert json.loads(seen.out)["node"]["slots"]["origin"] == "default"
    assert "did you mean EDGESERVE_NODE_SLOTS?" in seen.err


FOLDERS = ("EDGESERVE_CONFIG_DIR", "EDGESERVE_STATE_DIR", "EDGESERVE_MODELS_DIR")


def shown(edgeserve: Terminal, section: str = "node") -> dict[str, Any]:
    seen = edgeserve("config", "show", "--section", section, "--json")
    found: dict[str, Any] = json.loads(seen.out)[section]
    return found


def test_a_folder_that_a_variable_moves_names_the_variable(
    edgeserve: Terminal, tmp_path: Path
) -> None:
    found = shown(edgeserve)

    for name, variable in (
        ("models_dir", "EDGESERVE_MODELS_DIR"),
        ("state_dir", "EDGESERVE_STATE_DIR"),
    ):
        place = str(tmp_path / name.removesuffix("_dir"))
        assert found[name] == {"value": place, "origin": f"environment {variable}"}


def test_a_folder_that_the_platform_moves_names_its_variable(
    edgeserve: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in FOLDERS:
        monkeypatch.delenv(name, raising=False)
    for name in ("CONFIG", "STATE", "DATA"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name))

    found = shown(edgeserve)

    assert found["models_dir"]["origin"] == "environment XDG_DATA_HOME"
    assert found["models_dir"]["value"].startswith(str(tmp_path / "DATA"))
    assert found["state_dir"]["origin"] == "environment XDG_STATE_HOME"
    assert "environment XDG_CONFIG_HOME" in edgeserve("config", "show").out


def test_a_folder_without_a_variable_is_the_default_and_an_empty_one_moves_none(
    edgeserve: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("EDGESERVE_STATE_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EDGESERVE_CONFIG_DIR", "")
    monkeypatch.setenv("EDGESERVE_MODELS_DIR", "")

    assert shown(edgeserve)["models_dir"]["origin"] == "default"


def test_the_files_of_secrets_that_count_are_shown(
    edgeserve: Terminal, tmp_path: Path
) -> None:
    before = shown(edgeserve, "balancer")
    edgeserve("token", "new")
    edgeserve("key", "new", "--file", str(tmp_path / "config" / "api-keys"))

    found = shown(edgeserve, "balancer")

    assert before["token_file"] == {"value": None, "origin": "default"}
    for name, file in (("token_file", "token"), ("api_key_file", "api-keys")):
        assert found[name]["value"] == str(tmp_path / "config" / file)
        assert found[name]["origin"].startswith("environment EDGESERVE_CONFIG_DIR")


def test_the_settings_file_still_wins_over_a_folder_that_was_moved(
    edgeserve: Terminal, tmp_path: Path
) -> None:
    (tmp_path / "config").mkdir()
    file = tmp_path / "config" / "edgeserve.toml"
    file.write_text('[node]\nmodels_dir = "/srv/models"\n')

    found = shown(edgeserve)["models_dir"]

    assert found == {"value": "/srv/models", "origin": f"{file} [node]"}
    assert "/srv/models" in edgeserve("pull", "no-such-model").err
