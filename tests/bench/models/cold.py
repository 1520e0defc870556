"""Measure a cold request: from asking for a model on the disk to its first token.

    python -m tests.bench.models.cold [MODEL.gguf] [--runs 5]

Beside it, in turns, the same engine with the same settings is started by hand and
asked at once. The difference is what finding out, ordering and watching the load costs.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from argparse import ArgumentParser
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from edgeserve.config.settings import NodeSettings
from edgeserve.models.synthetic import Shape, a_model
from edgeserve.runtime.threads import openmp_environment
from node.engines.process import free_port
from node.hardware.sample import Sampler
from node.planning.prepare import prepared

SECONDS = 120.0
LOOK_SECONDS = 0.02
BODY = {
    "messages": [{"role": "user", "content": "Say something."}],
    "stream": True,
}


def until_ok(url: str, headers: dict[str, str]) -> Any:
    """Ask again and again until the answer is 200; returns the JSON in it."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            asked = urllib.request.Request(url, headers=headers)
            with urllib.request.urlopen(asked, timeout=5) as answer:
                return json.loads(answer.read())
        except (OSError, ValueError):
            time.sleep(LOOK_SECONDS)
    raise TimeoutError(url)


def first_token(
    url: str, headers: dict[str, str], model: str, tokens: int = 4
) -> float:
    """Ask for a stream, and read it; returns the seconds until its first token."""
    began = time.monotonic()
    body = json.dumps({**BODY, "model": model, "max_tokens": tokens}).encode()
    headers = {**headers, "content-type": "application/json"}
    asked = urllib.request.Request(f"{url}/v1/chat/completions", body, headers)
    first = 0.0
    with urllib.request.urlopen(asked, timeout=SECONDS) as answer:
        for line in answer:
            if not first and b'"content":"' in line and b'"content":""' not in line:
                first = time.monotonic() - began
    if not first:
        raise RuntimeError("the answer has no token")
    return first


def by_hand(file: Path, folder: Path) -> tuple[float, float]:
    """Start the engine alone; seconds until it has loaded, and to the first token."""
    settings = NodeSettings(models_dir=folder, models=(str(file),), threads=2)
    found = prepared(settings, Sampler()())
    planned = found.plan.engines[0]
    port = free_port()
    command = found.engine_of(planned).command(planned.spec, port=port, api_key="k")
    headers = {"authorization": "Bearer k"}
    began = time.monotonic()
    process = subprocess.Popen(
        command.argv,
        env={**os.environ, **openmp_environment(), **command.env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until_ok(f"http://127.0.0.1:{port}/health", {})
        loaded = time.monotonic() - began
        answered = first_token(f"http://127.0.0.1:{port}", headers, planned.spec.model)
        return loaded, loaded + answered
    finally:
        process.kill()
        process.wait()


@contextmanager
def endpoint(
    folder: Path,
    other: Path,
    *,
    nodes: int = 1,
    node: Sequence[str] = (),
    balancer: Sequence[str] = (),
) -> Generator[str]:
    """Run nodes that have loaded only `other`, and a balancer; yields its URL.

    `node` and `balancer` are further flags.
    """
    ports, front = [free_port() for _ in range(nodes)], free_port()
    one = ("node", "start", "--models-dir", str(folder), "--model", str(other))
    started = [
        (f"node-{port}", (*one, "--port", str(port), "--no-advertise", *node))
        for port in ports
    ]
    urls = [each for p in ports for each in ("--node", f"http://127.0.0.1:{p}")]
    every = ("balancer", "start", "--port", str(front), "--no-discover", *urls)
    started.append(("balancer", (*every, *balancer)))
    with ExitStack() as stack:
        for name, argv in started:
            env = {
                **os.environ,
                "EDGESERVE_CONFIG_DIR": str(folder / "config"),
                "EDGESERVE_STATE_DIR": str(folder / name),
            }
            process = subprocess.Popen(
                (sys.executable, "-m", "edgeserve", *argv),
                env=env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait, SECONDS)
            stack.callback(process.terminate)
        yield f"http://127.0.0.1:{front}"


def state(url: str, model: str) -> str:
    """Return the state of a model at the endpoint."""
    found = until_ok(f"{url}/v1/models", {})["data"]
    return next((each["state"] for each in found if each["id"] == model), "unknown")


def wait_for(url: str, model: str, wanted: str) -> None:
    """Wait until a model has a state."""
    deadline = time.monotonic() + SECONDS
    while state(url, model) != wanted:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{model} is {state(url, model)}, not {wanted}")
        time.sleep(LOOK_SECONDS)


def unload(url: str, model: str, folder: Path) -> None:
    """Have a model unloaded everywhere, with the key of the balancer's state folder."""
    argv = (sys.executable, "-m", "edgeserve", "models", "unload", model, "--url", url)
    env = {**os.environ, "EDGESERVE_STATE_DIR": str(folder / "balancer")}
    subprocess.run(argv, env=env, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Measure, and print a table."""
    parser = ArgumentParser(description="Measure cold requests.")
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cold-") as name:
        folder = Path(name)
        other = a_model(folder / "other-F16.gguf", name="other")
        shape = Shape(embedding=1024, feed_forward=2816, layers=8, context=1024)
        file = folder / "cold-F16.gguf"
        if given.model:
            file.symlink_to(given.model.resolve())
        else:
            a_model(file, shape, name="cold")
        measured = list(runs(folder, file, other, given.runs))
    print(f"{file.name}, {given.runs} runs in turns; median seconds")
    for what, column in zip(
        ("by hand: loaded", "by hand: first token", "endpoint: first token"),
        zip(*measured, strict=True),
        strict=True,
    ):
        print(f"  {what:24} {statistics.median(column):.3f}")
    more = [through - hand for _, hand, through in measured]
    print(f"  {'more':24} {statistics.median(more):.3f}")


def runs(
    folder: Path, file: Path, other: Path, count: int
) -> Generator[tuple[float, float, float]]:
    """Yield, for each run: loaded by hand, first token by hand, and by the endpoint."""
    with endpoint(folder, other, node=("--threads", "2")) as url:
        wait_for(url, "other", "loaded")
        wait_for(url, "cold", "available")
        for _ in range(count):
            loaded, hand = by_hand(file, folder)
            through = first_token(url, {}, "cold")
            unload(url, "cold", folder)
            wait_for(url, "cold", "available")
            yield loaded, hand, through


if __name__ == "__main__":
    main()
