"""A real bundled engine for golden tests: one process, one model, two slots."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeserve.wire import Launch
from node.engines.base import EngineSpec
from node.engines.bundled import bundled
from tests.patience import PATIENCE

START_SECONDS = 120
KEY = "golden-tests-engine-key"


@dataclass(frozen=True)
class RealEngine:
    """Where it listens."""

    port: int
    process: subprocess.Popen[bytes]

    def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Ask, and read the answer whole."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=PATIENCE
        )
        headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def ask(self, path: str, **fields: Any) -> tuple[int, Any]:
        """Ask without streaming."""
        status, body = self.post(path, json.dumps(fields).encode())
        return status, json.loads(body)


LAUNCH = Launch(slots=2, context=1024, batch=128, threads=1)


@contextmanager
def real_engine(
    model: Path,
    variant: str = "smol:Q4_1",
    *,
    launch: Launch = LAUNCH,
    drafts: Mapping[str, Path] | None = None,
) -> Generator[RealEngine]:
    """Run one until the block ends; `variant` is the name that it has for its model."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    spec = EngineSpec(
        id=variant,
        model="smol",
        variant=variant,
        path=model,
        role="generate",
        abilities=("chat", "completion"),
        launch=launch,
        drafts=drafts or {},
    )
    command = bundled().command(spec, port=port, api_key=KEY)
    process = subprocess.Popen(
        command.argv,
        env={**os.environ, **command.env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _until_healthy(port, process)
        yield RealEngine(port, process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)


def _until_healthy(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    raise AssertionError("the engine did not start")
