"""Aider, without a terminal, on a small repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.conftest import LIMIT_SECONDS, MODEL, WRONG, Fleet, client
from tests.docs.page import Commands, steps

client("aider")

QUIET = (
    *("--no-check-update", "--no-show-model-warnings", "--no-show-release-notes"),
    *("--analytics-disable", "--no-gitignore", "--no-pretty", "--yes-always"),
    *("--map-tokens", "0", "--no-suggest-shell-commands", "--no-auto-lint"),
)
CHANGED = 'print("Hi")\n'
PAGE = Path(__file__).parents[2] / "docs" / "coding-agent.md"
ANSWER = f"hello.py\n```\n{CHANGED}```\n"
"""A whole file, as its simplest form of edits has it."""

GRAMMAR = f"root ::= {json.dumps(ANSWER)}"
"""The model is too small to edit: llama.cpp's own field tells it each word."""

SETTINGS = [
    {
        "name": f"openai/{MODEL}",
        "edit_format": "whole",
        "extra_params": {"extra_body": {"grammar": GRAMMAR}},
    },
    {
        "name": f"ollama_chat/{MODEL}",
        "edit_format": "ask",
        "extra_params": {"temperature": 0, "stop": ["."]},
    },
]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "hello.py").write_text('print("Hello")\n')
    (tmp_path / ".aider.model.settings.yml").write_text(json.dumps(SETTINGS))
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b.example")
    for command in (("init", "-q"), ("add", "hello.py"), ("commit", "-qm", "Begin")):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    return tmp_path


def aider(repository: Path, model: str, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "aider", "--model", f"{model}/{MODEL}", *QUIET,
         "--message", "Say less.", "hello.py"],
        env={**os.environ, **environ},
        cwd=repository, stdin=subprocess.DEVNULL, timeout=LIMIT_SECONDS,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def as_documented(repository: Path, fleet: Fleet, **environ: str) -> str:
    """Paste the block of the page, with this fleet's address, key and model."""
    blocks = [each for each in steps(PAGE.read_text()) if isinstance(each, Commands)]
    (script,) = (each.script for each in blocks if "\naider " in each.script)
    for shown, ours in (
        ("http://127.0.0.1:8080", fleet.url),
        ("KEY=none", f"KEY={fleet.key}"),
        ("qwen3-4b", MODEL),
    ):
        assert shown in script
        script = script.replace(shown, ours)
    command = f'aider() {{ "{sys.executable}" -m aider {" ".join(QUIET)} "$@"; }}\n'
    done = subprocess.run(
        ["bash", "-euc", command + script],
        env={**os.environ, **environ},
        cwd=repository, stdin=subprocess.DEVNULL, timeout=LIMIT_SECONDS,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("stream", ["true", "false"])
def test_a_file_is_edited_over_openais_api_with_the_documented_settings(
    fleet: Fleet, repository: Path, stream: str
) -> None:
    said = as_documented(repository, fleet, AIDER_STREAM=stream)

    assert "Tokens:" in said
    assert "received" in said
    assert (repository / "hello.py").read_text() == CHANGED
    assert "Commit" in said


def test_a_message_is_answered_over_ollamas_api(fleet: Fleet, repository: Path) -> None:
    said = aider(
        repository, "ollama_chat", OLLAMA_API_BASE=fleet.url, OLLAMA_API_KEY=fleet.key
    )

    assert "received" in said


def test_a_wrong_key_is_told_at_once(fleet: Fleet, repository: Path) -> None:
    said = aider(repository, "openai", OPENAI_API_BASE=fleet.v1, OPENAI_API_KEY=WRONG)

    assert "AuthenticationError" in said
