"""Home Assistant: its Ollama and OpenAI conversation integrations, set up over its API.

It runs as its users run it, with its own web server and no devices.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import LIMIT_SECONDS, MODEL, QUESTION, Fleet, client

client("homeassistant")

PAGE = (Path(__file__).parents[2] / "docs" / "home-assistant.md").read_text()
AT = "http://nuc:8080"
"""The balancer, as the page has it."""

SETTINGS = """
http:
  server_host: 127.0.0.1
  server_port: {port}
api:
config:
conversation:
"""
USER = {"username": "admin", "password": "admin-of-tests"}
START_SECONDS = 300.0


@dataclass
class HomeAssistant:
    """Its web server, as a signed-in user reaches it."""

    url: str
    token: str = ""

    def post(self, path: str, body: Any) -> Any:
        """Send JSON and return what is answered."""
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        return self._send(path, json.dumps(body).encode(), headers)

    def _send(self, path: str, body: bytes, headers: dict[str, str]) -> Any:
        request = urllib.request.Request(f"{self.url}{path}", body, headers)
        with urllib.request.urlopen(request, timeout=LIMIT_SECONDS) as answer:
            return json.load(answer)

    def sign_in(self) -> None:
        """Sign in as its only user."""
        known = {"client_id": self.url, "redirect_uri": self.url}
        begun = {**known, "handler": ["homeassistant", None]}
        flow = self.post("/auth/login_flow", begun)["flow_id"]
        step = {"client_id": self.url, **USER}
        done = self.post(f"/auth/login_flow/{flow}", step)
        form = {**known, "grant_type": "authorization_code", "code": done["result"]}
        body = urllib.parse.urlencode(form).encode()
        self.token = self._send("/auth/token", body, {})["access_token"]

    def add(self, integration: str, *steps: dict[str, str]) -> str:
        """Set an integration up, as its forms ask for it; returns its agent."""
        path = "/api/config/config_entries/flow"
        shown = self.post(path, {"handler": integration})
        for step in steps:
            shown = self.post(f"{path}/{shown['flow_id']}", step)
        assert shown["type"] == "create_entry", shown
        assert shown["result"]["state"] == "loaded", shown
        return str(shown["result"]["entry_id"])

    def change(self, entry: str, *steps: dict[str, Any]) -> None:
        """Change the options of an integration, as its forms ask for them."""
        path = "/api/config/config_entries/options/flow"
        shown = self.post(path, {"handler": entry})
        for step in steps:
            shown = self.post(f"{path}/{shown['flow_id']}", step)
        assert shown["type"] == "create_entry", shown

    def ask(self, agent: str) -> str:
        """Return what the agent says."""
        path = "/api/conversation/process"
        answer = self.post(path, {"text": QUESTION, "agent_id": agent})["response"]
        assert answer["response_type"] == "action_done", answer
        return str(answer["speech"]["plain"]["speech"])


@pytest.fixture(scope="module")
def home(
    fleet: Fleet, tmp_path_factory: pytest.TempPathFactory
) -> Generator[HomeAssistant]:
    folder = tmp_path_factory.mktemp("home-assistant")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "configuration.yaml").write_text(SETTINGS.format(port=port))
    hass = [str(Path(sys.executable).with_name("hass")), "-c", str(folder)]
    # It has no field for OpenAI's address: the package takes it from here.
    (shown,) = re.findall(r"`(OPENAI_BASE_URL=\S+)`", PAGE)
    name, _, url = shown.replace(AT, fleet.open).partition("=")
    environ = {**os.environ, name: url}
    add = ["--script", "auth", "-c", str(folder), "add", *USER.values()]
    subprocess.run([hass[0], *add], env=environ, check=True, capture_output=True)
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(hass, env=environ, stdout=out, stderr=out)
    try:
        found = HomeAssistant(f"http://127.0.0.1:{port}")
        _until_signed_in(found, process)
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until_signed_in(home: HomeAssistant, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            home.sign_in()
        except urllib.error.HTTPError as error:
            pytest.fail(f"it answered {error.code}: {error.read()!r}")
        except OSError:
            time.sleep(0.5)
        else:
            return
    pytest.fail("it did not start")


def test_the_ollama_integration_lists_the_models_and_converses(
    fleet: Fleet, home: HomeAssistant
) -> None:
    model = {"model": f"{MODEL}:latest"}
    (address,) = re.findall(r"It asks for the address,\s+`(\S+)`", PAGE)
    agent = home.add("ollama", {"url": address.replace(AT, fleet.open)}, model)

    assert home.ask(agent)


def test_the_openai_integration_converses(home: HomeAssistant) -> None:
    agent = home.add("openai_conversation", {"api_key": "any"})
    own = {"recommended": False, "prompt": "Be kind.", "llm_hass_api": "none"}
    home.change(agent, own, {**own, "chat_model": MODEL, "max_tokens": 12})

    assert home.ask(agent)
