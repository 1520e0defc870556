import sys
from pathlib import Path

import pytest

from edgeserve.errors import SettingsError
from edgeserve.models.facts import read
from quantize.imatrix import CannotCalibrate, importance_matrix, native_tool
from tests.fakes.gguf import a_model

TOOL = """#!{python}
import sys
from pathlib import Path
import numpy as np
from tests.fakes.gguf import an_imatrix
arguments = sys.argv[1:]
text = Path(arguments[arguments.index("-f") + 1]).read_text()
if len(text) < 10:
    sys.exit("error: you need at least 1024 tokens")
one = np.ones((1, 256), np.float32), np.ones((1, 1), np.float32)
an_imatrix(Path(arguments[arguments.index("-o") + 1]), {{"w": one}})
"""


@pytest.fixture(autouse=True)
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A llama-imatrix that writes one entry, or refuses a short text."""
    path = tmp_path / "llama-imatrix"
    path.write_text(TOOL.format(python=sys.executable))
    path.chmod(0o755)
    root = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", root)
    monkeypatch.setattr("quantize.imatrix.native_tool", lambda _name: path)
    return path


def test_a_text_becomes_a_matrix_once(tmp_path: Path, tool: Path) -> None:
    facts = read(a_model(tmp_path / "m.F16.gguf"))
    text = tmp_path / "talk.txt"
    text.write_text("long enough for this")

    made = importance_matrix(facts, text, tmp_path, 1)
    tool.unlink()

    assert made.name.startswith("m.talk-")
    assert importance_matrix(facts, text, tmp_path, 1) == made
    text.write_text("another text is another matrix")
    with pytest.raises(CannotCalibrate, match="No such file"):
        importance_matrix(facts, text, tmp_path, 1)


def test_a_refusal_of_the_tool_is_passed_on_and_leaves_nothing(tmp_path: Path) -> None:
    facts = read(a_model(tmp_path / "m.F16.gguf"))
    text = tmp_path / "talk.txt"
    text.write_text("short")
    before = sorted(tmp_path.iterdir())

    with pytest.raises(CannotCalibrate, match="at least 1024 tokens"):
        importance_matrix(facts, text, tmp_path, 1)

    assert sorted(tmp_path.iterdir()) == before


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
