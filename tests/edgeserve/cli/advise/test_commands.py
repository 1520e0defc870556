import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeserve.cli.main import edgeserve
from edgeserve.models.synthetic import a_model


def run(*arguments: str) -> str:
    found = CliRunner().invoke(edgeserve, ["advise", *arguments])
    assert found.exit_code == 0, found.output
    return found.output


def test_advice_for_this_machine_names_a_model_and_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESERVE_MODELS_DIR", str(tmp_path))

    text = run()

    assert "machine     " in text
    assert "writes      " in text
    assert "  edgeserve " in text


def test_a_command_is_never_broken_into_lines() -> None:
    lines = run("qwen2.5-0.5b-instruct:Q8").splitlines()

    (line,) = [each for each in lines if "edgeserve pull" in each]
    assert line.endswith(" edgeserve up --model qwen2.5-0.5b-instruct:Q8_0")


def test_json_of_a_file(tmp_path: Path) -> None:
    path = a_model(tmp_path / "tiny.Q8_0.gguf")

    found = json.loads(run(str(path), "--json"))

    assert found["models"][0]["model"] == "tiny"
    assert found["vllm"] is None
