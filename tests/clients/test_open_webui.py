"""Open WebUI: its server, connected to the balancer as to OpenAI and as to Ollama."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import ASK, LIMIT_SECONDS, MODEL, Fleet, client

client("open_webui")

START_SECONDS = 300.0
USER = {"name": "a", "email": "a@b.example", "password": "Password-of-tests-1"}


@dataclass
class OpenWebui:
    """Its API, as the page of a signed-in user calls it."""

    url: str
    token: str = ""

    def open(self, path: str, body: Any = None) -> Any:
        """Send JSON, or ask; returns the answer as it comes."""
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, headers)
        return urllib.request.urlopen(request, timeout=LIMIT_SECONDS)

    def ask(self, path: str, body: Any = None) -> Any:
        """Return the JSON that is answered."""
        with self.open(path, body) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def page(
    fleet: Fleet, tmp_path_factory: pytest.TempPathFactory
) -> Generator[OpenWebui]:
    folder = tmp_path_factory.mktemp("open-webui")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    program = str(Path(sys.executable).with_name("open-webui"))
    environ = {
        **os.environ,
        "DATA_DIR": str(folder / "data"),
        "OPENAI_API_BASE_URL": fleet.v1,
        "OPENAI_API_KEY": fleet.key,
        "OLLAMA_BASE_URL": fleet.open,
        # It would fetch a model for embeddings from a hub.
        "OFFLINE_MODE": "true",
        "RAG_EMBEDDING_ENGINE": "openai",
        "WEBUI_SECRET_KEY": "of-tests",
    }
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            [program, "serve", "--host", "127.0.0.1", "--port", port],
            env=environ, cwd=folder, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        found = OpenWebui(f"http://127.0.0.1:{port}")
        _until_up(found, process)
        found.token = found.ask("/api/v1/auths/signup", USER)["token"]
        yield found
    finally:
        process.terminate()
        try:
            process.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until_up(page: OpenWebui, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            page.ask("/api/config")
        except OSError:
            time.sleep(0.5)
        else:
            return
    pytest.fail("it did not start")


def test_the_models_of_both_connections_are_listed(page: OpenWebui) -> None:
    found = {each["id"]: each["owned_by"] for each in page.ask("/api/models")["data"]}

    assert (found[MODEL], found[f"{MODEL}:latest"]) == ("openai", "ollama")
    assert page.ask("/ollama/api/version")["version"]
    running = page.ask("/ollama/api/ps")
    assert f"{MODEL}:latest" in json.dumps(running)


@pytest.mark.parametrize("model", [MODEL, f"{MODEL}:latest"], ids=["openai", "ollama"])
def test_a_chat_is_answered_at_once_and_in_a_stream(
    page: OpenWebui, model: str
) -> None:
    asked = {"model": model, "messages": ASK, "max_tokens": 8}
    whole = page.ask("/api/chat/completions", {**asked, "stream": False})
    with page.open("/api/chat/completions", {**asked, "stream": True}) as answer:
        lines = [line[6:] for line in answer if line.startswith(b"data: {")]
    deltas = [each["choices"][0]["delta"] for each in map(json.loads, lines)]
    text = "".join(each.get("content") or "" for each in deltas)

    assert whole["choices"][0]["message"]["content"]
    assert text


def test_embeddings_are_answered(page: OpenWebui) -> None:
    answer = page.ask("/api/embeddings", {"model": MODEL, "input": "a cat"})

    assert len(answer["data"][0]["embedding"]) == 576
