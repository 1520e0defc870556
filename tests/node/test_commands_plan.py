import json
from pathlib import Path

import gguf
import pytest
from click.testing import CliRunner, Result

from edgeserve.config.settings import NodeSettings
from node.commands import node
from node.engines.devices import Device
from node.planning.plan import plan
from node.planning.prepare import Prepared
from node.planning.report import plan_lines
from tests.fakes.gguf import a_model
from tests.fleet.llama_server import script
from tests.node.building import some_hardware

GIB = 2**30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    models = tmp_path / "models"
    models.mkdir()
    a_model(models / "a.F16.gguf")
    a_model(models / "a.Q8_0.gguf", kind=gguf.GGMLQuantizationType.Q8_0)
    return tmp_path


def asked(folder: Path, *words: str) -> Result:
    fake = script(folder / "llama-server")
    places = ("--models-dir", str(folder / "models"), "--state-dir", str(folder / "s"))
    given = ["plan", *words, *places, "--llama-server", str(fake)]
    wide = {"COLUMNS": "400"}
    return CliRunner().invoke(node, given, catch_exceptions=False, env=wide)


def test_a_plan_shows_the_arithmetic_and_why(folder: Path) -> None:
    said = asked(folder, "a", "--slots", "2")

    assert said.exit_code == 0
    assert "native" in said.output
    assert "a:F16" in said.output
    assert "a:Q8_0" not in said.output
    assert "the best quality that fits" in said.output
    assert "2 x 512 tokens of context" in said.output
    assert "= weights" in said.output
    assert "not tuned" in said.output


def test_a_plan_counts_the_prompt_cache(folder: Path) -> None:
    without, said = asked(folder, "a"), asked(folder, "a", "--cache-ram-mib", "512")

    assert "prompt cache  none" in without.output
    assert "prompt cache  512 MiB" in said.output
    assert "+ prompt cache 512 MiB" in said.output


def test_a_plan_is_also_json(folder: Path) -> None:
    said = json.loads(asked(folder, "a:*", "--json").output)

    assert [each["id"] for each in said["engines"]] == ["a:F16", "a:Q8_0"]
    need = said["engines"][0]["need"]
    parts = ("weights", "kv", "compute", "process", "cache")
    assert need["total"] == sum(need[each] for each in parts)
    assert said["problems"] == []


def test_what_cannot_be_served_is_reported_and_ends_in_status_1(folder: Path) -> None:
    said = asked(folder, "a:F16", "--context", str(10**12))

    assert said.exit_code == 1
    assert "cannot: " in said.output
    assert "weights 2.5 MiB" in said.output


def test_gpus_and_what_goes_there_are_shown(folder: Path) -> None:
    gpu = Device("CUDA0", "NVIDIA GeForce RTX 4090", 24 * GIB, 20 * GIB)
    settings = NodeSettings(models=("a:F16",), models_dir=folder / "models")
    hardware = some_hardware()
    found = Prepared(None, (gpu,), plan(settings, hardware, (gpu,)))
    text = "\n".join(plan_lines(found, hardware, limited=True))

    assert "CUDA0: NVIDIA GeForce RTX 4090, 20 GiB of 24 GiB free" in text
    assert "GPU layers    all of " in text
    assert "of it on GPUs" in text
    assert "control group's limit" in text
