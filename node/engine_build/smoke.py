"""Smoke test: check a new build's version and devices, and generate some tokens."""

from __future__ import annotations

import http.client
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgeserve.errors import EngineUnavailable, in_words
from edgeserve.models.synthetic import Kind, Shape, a_model
from edgeserve.runtime.tether import tethered
from node.engine_build.backends import Backend
from node.engines.process import free_port

ASK_SECONDS = 60.0
START_SECONDS = 120.0
"""A GPU's driver may compile kernels at the first start."""

SHAPE = Shape(layers=2, embedding=256, feed_forward=512, vocabulary=1024)
"""Small, with the widths for which the processors' own kernels are used."""


class NotWorking(EngineUnavailable):
    """The build does not work on this machine; the sentence says how."""


@dataclass(frozen=True)
class Smoke:
    """The server's version and devices, by its own output."""

    version: str
    devices: tuple[str, ...]


def smoke(server: Path, backend: Backend, work: Path) -> Smoke:
    """Ask for version and devices, then generate tokens. Raises NotWorking."""
    version = _ask(server, "--version").partition("\n")[0]
    listed = _ask(server, "--list-devices").partition("Available devices:")[2]
    devices = tuple(re.findall(r"^\s+(\w+: .+?)\s*$", listed, re.MULTILINE))
    if backend != "cpu" and not devices:
        raise NotWorking(
            f"the {backend} build finds no {backend} device; is its driver installed?"
        )
    for kind in (Kind.Q4_0, Kind.Q8_0, Kind.Q4_K):
        model = a_model(work / f"{kind.name}.gguf", SHAPE, kind=kind)
        _try(server, model, kind.name)
    return Smoke(version.removeprefix("version: "), devices)


def _ask(server: Path, flag: str) -> str:
    try:
        done = subprocess.run(
            [server, flag],
            capture_output=True,
            text=True,
            timeout=ASK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        why = in_words(error)
        raise NotWorking(f"{server} {flag} does not answer: {why}") from error
    if done.returncode != 0:
        raise NotWorking(f"{server} {flag} ends with {done.returncode}: {done.stderr}")
    return (done.stdout + done.stderr).strip()


def _try(server: Path, model: Path, kind: str) -> None:
    """Read 64 tokens and write 8: enough to run every kernel for this type."""
    body = {"prompt": list(range(3, 67)), "n_predict": 8, "ignore_eos": True}
    try:
        with _serving(server, model) as url:
            answer: dict[str, Any] = _post(f"{url}/completion", body)
    except (OSError, http.client.HTTPException) as error:
        raise NotWorking(f"the build fails with {kind} weights: {error}") from error
    if answer.get("tokens_predicted") != 8:
        raise NotWorking(f"the build answers {kind} weights with {str(answer)[:200]}")


@contextmanager
def _serving(server: Path, model: Path) -> Generator[str]:
    """Serve the model for the length of the block. Raises OSError if it ends early."""
    port = free_port()
    command = [
        *(str(server), "-m", str(model), "--host", "127.0.0.1", "--port", str(port)),
        *("-c", "256", "-b", "64", "-np", "1", "--no-kv-unified", "-t", "2"),
        *("--cache-ram", "0", "--no-ui", "--fit", "off"),
    ]
    with (model.parent / "smoke.log").open("wb") as log:
        running = subprocess.Popen(tethered(command), stdout=log, stderr=log)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", running)
        yield f"http://127.0.0.1:{port}"
    finally:
        running.kill()
        running.wait()


def _wait_for(url: str, running: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if running.poll() is not None:
            raise OSError(f"llama-server ended with status {running.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own URL
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise OSError(f"llama-server is not ready after {START_SECONDS:g} s")


def _post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(  # noqa: S310 - our own URL
        url, msgspec.json.encode(body), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=ASK_SECONDS) as answer:  # noqa: S310 - our own URL
        return msgspec.json.decode(answer.read())
