"""One real endpoint for the whole session: balancer, node, engines, SmolLM2."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import openai
import openai.types
import pytest

from tests.fakes.variants import requantized
from tests.native import engine_flags
from tests.patience import PATIENCE

URL = re.compile(r"http://[^\s/]+")
MODEL = "smollm2-135m-instruct"
START_SECONDS = 120


@dataclass(frozen=True)
class Endpoint:
    """Where the balancer and its one node listen."""

    url: str
    node_url: str
    client: openai.OpenAI


@contextmanager
def started(name: str, *arguments: str, home: Path) -> Generator[str]:
    """Run `edgeserve NAME start …` until the block ends; yields the URL it prints."""
    with running_process(name, *arguments, home=home) as (url, _):
        yield url


@contextmanager
def running_process(
    name: str, *arguments: str, home: Path
) -> Generator[tuple[str, int]]:
    """Do the same; yields the process id as well."""
    environ = {
        **os.environ,
        "EDGESERVE_CONFIG_DIR": str(home / "config"),
        "EDGESERVE_STATE_DIR": str(home / name),
        "PYTHONUNBUFFERED": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "edgeserve", name, "start", "--port", "0", *arguments],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines: Queue[str | None] = Queue()
    reading = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
    reading.start()
    try:
        yield _first_url(lines), process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        reading.join(PATIENCE)
        process.stdout.close()


def _read(stream: Iterator[str], lines: Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _first_url(lines: Queue[str | None]) -> str:
    seen: list[str] = []
    while True:
        try:
            line = lines.get(timeout=START_SECONDS)
        except Empty:
            line = None
        if line is None:
            pytest.fail("did not start:\n" + "".join(seen))
        seen.append(line)
        if found := URL.search(line):
            return found.group()


@pytest.fixture(scope="session")
def second_variant(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2 again, as Q8_0: requantized, to have two variants to choose between."""
    target = tmp_path_factory.mktemp("models") / "SmolLM2-135M-Instruct.Q8_0.gguf"
    requantized(smollm2, target)
    return target


@pytest.fixture(scope="session")
def endpoint(
    smollm2: Path, second_variant: Path, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Endpoint]:
    home = tmp_path_factory.mktemp("home")
    with (
        started(
            "node",
            *("--model", str(smollm2), "--model", str(second_variant)),
            *("--embedding-model", str(smollm2)),
            *("--slots", "2", "--context", "1024", "--no-advertise"),
            *engine_flags(),
            home=home,
        ) as node_url,
        started(
            "balancer", "--no-discover", "--node", node_url, home=home
        ) as balancer_url,
        openai.OpenAI(
            base_url=f"{balancer_url}/v1", api_key="none", max_retries=0
        ) as client,
    ):
        endpoint = Endpoint(balancer_url, node_url, client)
        _until_served(endpoint, 2)
        yield endpoint


def _until_served(endpoint: Endpoint, variants: int) -> None:
    """Wait until variants of the model and the embeddings engine are loaded."""
    deadline = time.monotonic() + START_SECONDS
    client = endpoint.client
    while time.monotonic() < deadline:
        loaded = [each for m in client.models.list().data for each in _loaded(m)]
        able = [ability for each in loaded for ability in each["abilities"]]
        if len(loaded) >= variants and "embeddings" in able:
            return
        time.sleep(0.2)
    pytest.fail(f"after {START_SECONDS} s: {client.models.list()}")


def _loaded(model: openai.types.Model) -> list[dict[str, Any]]:
    variants: list[dict[str, Any]] = (model.model_extra or {})["variants"]
    return [each for each in variants if each["state"] == "loaded"]
