import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from node.commands import node
from tests.fakes.gguf import a_model
from tests.fleet.llama_server import script
from tests.patience import PATIENCE


def words(folder: Path, *more: str) -> list[str]:
    fake = script(folder / "llama-server", "--decode", "500", "--prefill", "5000")
    places = ("--models-dir", str(folder / "models"), "--state-dir", str(folder / "s"))
    return [*more, *places, "--llama-server", str(fake)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    a_model(tmp_path / "models" / "a.F16.gguf")
    return tmp_path


def asked(folder: Path, *more: str) -> Result:
    given = words(folder, *more)
    return CliRunner().invoke(node, given, catch_exceptions=False)


def test_a_result_is_kept_and_the_plan_shows_it(folder: Path) -> None:
    said = asked(folder, "tune", "a", "--seconds", "1", "--json")
    [result] = json.loads(said.stdout)
    plan = asked(folder, "plan", "a")

    assert result["key"]["variant"] == "a:F16"
    assert result["untuned"]["decode"] > 0
    assert len(list((folder / "s" / "tuned").glob("a.F16-generate-*.json"))) == 1
    assert f"tuned on {result['made'][:10]}" in plan.output
    assert "for one stream, measured" in plan.output


def test_a_model_that_is_not_there_is_one_sentence(folder: Path) -> None:
    argv = [sys.executable, "-m", "edgeserve", "node", *words(folder, "tune", "b")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE)

    assert done.returncode == 2
    assert done.stderr.startswith("edgeserve: no file and no model 'b'")
    assert "Traceback" not in done.stderr


async def test_an_interrupted_tuning_leaves_nothing_behind(folder: Path) -> None:
    argv = [sys.executable, "-m", "edgeserve", "node", *words(folder, "tune", "a")]
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE):
            first = await process.stderr.readline()
            process.send_signal(signal.SIGINT)
            _, rest = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()

    assert first.startswith(b"untuned: reads")
    assert process.returncode == 1
    assert b"Traceback" not in rest
    assert not (folder / "s" / "tuned").exists()
    assert list((folder / "s" / "engines" / "running").iterdir()) == []


@pytest.mark.engine
def test_the_real_engine_is_tuned_within_bounds(smollm2: Path, tmp_path: Path) -> None:
    given = ["tune", str(smollm2), "--seconds", "8", "--json", "--engine", "bundled"]
    places = ["--state-dir", str(tmp_path), "--slots", "2", "--context", "512"]
    said = CliRunner().invoke(node, [*given, *places], catch_exceptions=False)
    [result] = json.loads(said.stdout)

    assert result["untuned"]["prefill"] > result["untuned"]["decode"] > 0
    assert result["gain"] >= 0
    assert result["tuned"]["slots"] is None
    assert result["key"]["engine"].startswith("bundled xllamacpp")
