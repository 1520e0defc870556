"""The command `llm`: with its own list of models, and with its Ollama plugin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.clients.conftest import (
    CITY,
    LIMIT_SECONDS,
    MODEL,
    QUESTION,
    WRONG,
    Fleet,
    client,
)

client("llm")

NOTHING: Mapping[str, str] = {}
MODELS = """
- model_id: fleet
  model_name: {model}
  api_base: {v1}
  api_key_name: fleet
  can_stream: true
  supports_schema: true
  supports_tools: true
"""
FUNCTION = '''
def weather(city: str) -> str:
    """Tells the weather of a city."""
    return "rain in " + city
'''


@pytest.fixture
def home(fleet: Fleet, tmp_path: Path) -> Path:
    settings = MODELS.format(model=MODEL, v1=fleet.v1)
    (tmp_path / "extra-openai-models.yaml").write_text(settings)
    (tmp_path / "keys.json").write_text(json.dumps({"fleet": fleet.key}))
    return tmp_path


def llm(
    home: Path, *arguments: str, fails: bool = False, more: Mapping[str, str] = NOTHING
) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "llm", *arguments],
        env={**os.environ, "LLM_USER_PATH": str(home), **more},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr if fails else done.stdout


EXACT = ("-o", "temperature", "0", "-o", "max_tokens", "60")


def test_a_prompt_is_answered_with_and_without_a_stream(home: Path) -> None:
    streamed = llm(home, "-m", "fleet", *EXACT, QUESTION)
    whole = llm(home, "-m", "fleet", "--no-stream", *EXACT, QUESTION)

    assert streamed.strip() == whole.strip() != ""
    assert llm(home, "-m", "fleet", *EXACT, "-c", "And then?").strip()


def test_a_schema_is_kept_and_a_function_is_called(home: Path) -> None:
    schema = ("--schema", json.dumps(CITY))
    answer = llm(home, "-m", "fleet", *EXACT, *schema, QUESTION)
    called = llm(home, "-m", "fleet", *EXACT, "--functions", FUNCTION, QUESTION, "--td")

    assert set(json.loads(answer)) == {"city"}
    assert called.strip()
    logged = json.loads(llm(home, "logs", "--json", "-n", "3"))
    calls = [call for each in logged for call in each["tool_calls"]]
    assert [call["name"] for call in calls] == ["weather"]


def test_refusals_are_told(home: Path) -> None:
    assert "key" in llm(home, "-m", "fleet", QUESTION, "--key", WRONG, fails=True)


def test_its_ollama_plugin_finds_and_asks_the_models(fleet: Fleet, home: Path) -> None:
    where = {"OLLAMA_HOST": fleet.url, "OLLAMA_API_KEY": fleet.key}
    listed = llm(home, "ollama", "models", more=where)
    options = ("-o", "num_predict", "12", "-o", "temperature", "0")
    answer = llm(home, "-m", f"ollama/{MODEL}", *options, QUESTION, more=where)
    vector = json.loads(
        llm(home, "embed", "-m", f"ollama/{MODEL}", "-c", "a cat", more=where)
    )

    assert MODEL in listed
    assert answer.strip()
    assert len(vector) == 576
