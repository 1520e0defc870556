"""Runs llama.cpp's server tests against what we start, as a plugin of their pytest.

Each `ServerProcess.start` starts what CONFORMANCE_MODE names; the outcomes go to the
file CONFORMANCE_RESULTS. It stands in for the tests' own conftest.py.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import types
from collections.abc import Generator
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

from tests.conformance.fleet import Engine, Fleet
from tests.conformance.settings import Server

MODE = os.environ["CONFORMANCE_MODE"]
MODEL = Path(os.environ["CONFORMANCE_MODEL"])
RESULTS = Path(os.environ["CONFORMANCE_RESULTS"])

ABSENT = ("lora_files", "models_dir", "models_preset", "gcp_compat", "mmproj_url")
"""What no stand-in is made for."""

outcomes: dict[str, tuple[str, str]] = {}
running: dict[Any, Engine | Fleet] = {}


def pytest_configure() -> None:
    """Take the place of conftest.py."""
    sys.path[:0] = [str(Path.cwd()), str(Path.cwd() / "unit")]
    wget = types.ModuleType("wget")
    wget.__dict__["download"] = lambda _url, out: shutil.copy(MODEL, out)
    sys.modules["wget"] = wget
    os.environ["LLAMA_SERVER_DEBUG_FAKE_TIMING"] = "1"
    process = importlib.import_module("utils").ServerProcess
    process.start, process.stop = start, stop
    if MODE != "direct":
        name_no_models()


def start(server: Server, timeout_seconds: int = 0) -> None:  # noqa: ARG001 - theirs
    """Start what is asked for, of what can be had here."""
    see_that_it_can(server)
    if MODE == "direct":
        running[server] = Engine.started(server, MODEL)
    else:
        running[server] = Fleet(server, MODEL, balanced=MODE == "balancer")


def stop(server: Server) -> None:
    """End it."""
    if server in running:
        running.pop(server).stop()


def see_that_it_can(server: Server) -> None:
    """Raise where no stand-in would do."""
    lacking = [name for name in ABSENT if getattr(server, name, None)]
    if server.model_hf_repo is None or lacking:
        raise LookupError(f"no stand-in: {lacking or 'no model'}")


def name_no_models() -> None:
    """Leave out `model` where the test made it up: llama-server never looks at it."""
    asked = requests.Session.request

    def request(self: Any, method: str, url: str, **rest: Any) -> Any:
        return asked(self, method, url, **{**rest, "json": unnamed(rest.get("json"))})

    def prepare(_: Any, options: Any) -> Any:
        options.json_data = unnamed(options.json_data)
        return options

    requests.Session.request = request  # type: ignore[method-assign,assignment]
    openai.OpenAI._prepare_options = prepare  # type: ignore[method-assign,assignment]


def unnamed(body: Any) -> Any:
    """Return a body that names no model."""
    if not isinstance(body, dict):
        return body
    return {name: value for name, value in body.items() if name != "model"}


@pytest.fixture(autouse=True)
def _all_stop() -> Generator[None]:
    yield
    for server in tuple(running):
        stop(server)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the worst of what happened to each test, and why."""
    if report.when == "call" or not report.passed:
        _, why = outcomes.get(report.nodeid, ("", ""))
        if not report.passed:
            why = reason(report)
        outcomes[report.nodeid] = (report.outcome, why)


def reason(report: pytest.TestReport) -> str:
    """Return the line that says what was wrong."""
    lines = [line for line in str(report.longrepr).splitlines() if line[:2] == "E "]
    return lines[0][1:].strip()[:300] if lines else str(report.longrepr)[-300:]


def pytest_sessionfinish() -> None:
    """Write them down."""
    RESULTS.write_text(json.dumps(outcomes, indent=1, sort_keys=True))
