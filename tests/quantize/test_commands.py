import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgeserve.errors import CommandError
from quantize.commands import quantize
from quantize.worker.child import LibraryMissing
from tests.fakes.gguf import Kind, Shape, a_model
from tests.quantize.needs import library


def call(*arguments: object) -> Result:
    return CliRunner().invoke(quantize, [str(each) for each in arguments])


def answer(*arguments: object) -> str:
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_inspect_shows_shape_types_and_memory(tmp_path: Path) -> None:
    path = a_model(tmp_path / "m.Q8_0.gguf", kind=Kind.Q8_0)

    said = answer("inspect", path)

    for words in ("Synthetic", "llama", "15 Q8_0", "8.5", "1 slot", "8 slots"):
        assert words in said


def test_inspect_says_which_rows_k_quants_cannot_hold(tmp_path: Path) -> None:
    odd = a_model(tmp_path / "m.gguf", Shape(embedding=96, heads=3, kv_heads=1))

    said = " ".join(answer("inspect", odd).split())

    assert "13 of 15 matrices have rows of a length that 256 does not divide" in said


def test_inspect_gives_programs_the_same_in_bytes(tmp_path: Path) -> None:
    path = a_model(tmp_path / "m.gguf")

    facts = json.loads(answer("inspect", path, "--json", "--kv-type", "q8_0"))

    assert facts["parameters"] == 1_312_000
    assert facts["tensors"]["F16"]["count"] == 15
    smallest = facts["memory"][0]
    parts = ("weights", "kv", "compute", "process")
    assert smallest["total"] == sum(smallest[part] for part in parts)
    assert smallest["kv_type"] == "q8_0"


@pytest.mark.parametrize("command", ["inspect", "plan", "dequantize"])
def test_a_broken_model_is_a_sentence_with_its_name(
    tmp_path: Path, command: str
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"no model at all, but long enough")

    result = call(command, path)

    assert isinstance(result.exception, CommandError)
    assert str(path) in str(result.exception)


def test_without_the_library_a_sentence_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = a_model(tmp_path / "m.gguf")
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)

    result = call("run", path, "--types", "Q8_0")

    assert isinstance(result.exception, LibraryMissing)
    assert "pip install '.[quantize]'" in str(result.exception)
    assert "10 minutes" in str(result.exception)


def test_without_the_library_plan_answers_and_says_what_it_assumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = a_model(tmp_path / "m.gguf", Shape(vocabulary=4096))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setenv("COLUMNS", "80")

    asked = ("plan", path, "--types", "Q4_K_M,Q8_0", "--context", 512)
    said = answer(*asked)
    found = json.loads(answer(*asked, "--memory", "1GiB", "--json"))

    assert max(map(len, said.splitlines())) <= 80
    assert "assumed: types of tensors by llama.cpp's rules" in " ".join(said.split())
    assert "pip install '.[quantize]'" in " ".join(said.split())
    assert found["assumed"].startswith("assumed: ")
    assert found["machines"]["1GiB"]["best"] == "Q8_0"


@library
def test_calibrating_without_the_tool_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantize.imatrix.native_tool", lambda _name: None)
    path = a_model(tmp_path / "m.gguf")

    result = call("run", path, "--types", "IQ2_XXS", "--calibrate", path)

    assert "edgeserve engine build" in str(result.exception)


def test_dequantize_prints_where_the_base_is(tmp_path: Path) -> None:
    path = a_model(tmp_path / "m.Q4_0.gguf", kind=Kind.Q4_0)

    said = answer("dequantize", path, "--to", "BF16")

    assert said.strip() == str(tmp_path / "m-dequantized.BF16.gguf")


def test_a_mistake_on_the_command_line_is_one_sentence(tmp_path: Path) -> None:
    path = a_model(tmp_path / "m.gguf")

    done = subprocess.run(
        [sys.executable, "-m", "edgeserve", "quantize", "run", path, "--types", "Q9"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr.startswith("edgeserve: 'Q9' is not a quantization type")
    assert done.stderr.count("\n") == 1


@library
def test_plan_says_what_fits_where_and_what_is_best(tmp_path: Path) -> None:
    path = a_model(tmp_path / "m.gguf", Shape(vocabulary=4096))
    asked = ("plan", path, "--types", "Q4_K_M,Q8_0", "--context", 512)

    said = json.loads(answer(*asked, "--memory", "1GiB", "--memory", "1MiB", "--json"))

    assert [each["type"] for each in said["variants"]] == ["Q4_K_M", "Q8_0"]
    assert said["machines"]["1GiB"] == {"usable": 2**30, "best": "Q8_0"}
    assert said["machines"]["1MiB"]["best"] is None
    assert said["variants"][0]["fits"] == {"1GiB": True, "1MiB": False}
    assert "best" in answer(*asked, "--machine", "pi5-8gb")


@library
def test_run_and_compare_leave_files_manifest_and_picture(tmp_path: Path) -> None:
    base = a_model(tmp_path / "m.F16.gguf")

    answer("run", base, "--types", "Q8_0,Q4_0", "--tensor-type", "attn_v=F16")
    small = ("--context", 64, "--chunks", 1, "--no-speed", "--json")
    said = answer(
        "compare", base, tmp_path / "m.Q8_0.gguf", tmp_path / "m.Q4_0.gguf", *small
    )

    found = json.loads(said)
    assert [each["type"] for each in found["variants"]] == ["Q8_0", "Q4_0"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "m.F16.gguf",
        "m.Q4_0.gguf",
        "m.Q8_0.gguf",
        "m.compare.json",
        "m.compare.png",
        "m.variants.json",
    ]
