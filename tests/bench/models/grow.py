"""Watch a model grow and shrink: none, one engine, two, none again; on real engines.

    python -m tests.bench.models.grow [MODEL.gguf] [--requests 60] [--keep-alive 90]

Two nodes have the model on their disks only. So many requests come at once; afterwards
nothing comes. Prints each change with its time, and what the requests waited.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from argparse import ArgumentParser
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from edgeserve.config.paths import models_dir
from edgeserve.models.download import DEFAULT
from edgeserve.models.synthetic import a_model
from tests.bench.models.cold import endpoint, first_token, until_ok, wait_for

SECONDS = 400.0
LOOK_SECONDS = 0.1


def loaded(url: str) -> int:
    """Return how many engines have the model loaded."""
    found: list[Any] = until_ok(f"{url}/v1/models", {})["data"]
    return next((len(each["nodes"]) for each in found if each["id"] == "grown"), 0)


def watch(url: str, say: Callable[[str], None], stop: threading.Event) -> None:
    """Say each change of the number of loaded engines."""
    before = -1
    while not stop.is_set():
        now = loaded(url)
        if now != before:
            say(f"{now} loaded")
            before = now
        time.sleep(LOOK_SECONDS)


def main() -> None:
    """Run it once, and print what happens."""
    parser = ArgumentParser(description="Watch a model grow and shrink.")
    parser.add_argument("model", type=Path, nargs="?", default=None)
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--keep-alive", type=float, default=90.0)
    parser.add_argument("--no-autoscale", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="grow-") as name:
        folder = Path(name)
        other = a_model(folder / "other-F16.gguf", name="other")
        file = given.model or models_dir() / DEFAULT.file
        (folder / "grown-Q4_1.gguf").symlink_to(file.resolve())
        node = (
            "--keep-alive",
            f"{given.keep_alive:g}",
            "--slots",
            "2",
            "--threads",
            "1",
        )
        balancer = ("--no-autoscale",) if given.no_autoscale else ()
        with endpoint(folder, other, nodes=2, node=node, balancer=balancer) as url:
            observed(url, given.requests)


def observed(url: str, requests: int) -> None:
    """Send the requests, and watch until the model has gone again."""
    wait_for(url, "other", "loaded")
    wait_for(url, "grown", "available")
    began, stop = time.monotonic(), threading.Event()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {what}", flush=True)

    watcher = threading.Thread(target=watch, args=(url, say, stop))
    watcher.start()
    with ThreadPoolExecutor(requests) as pool:
        waits = sorted(
            pool.map(lambda _: first_token(url, {}, "grown", 32), range(requests))
        )
    say(
        f"{requests} answers; first token p50 {statistics.median(waits):.1f} s,"
        f" p95 {waits[int(len(waits) * 0.95)]:.1f} s"
    )
    deadline = time.monotonic() + SECONDS
    while loaded(url) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    stop.set()
    watcher.join()
    say("none loaded" if not loaded(url) else "still loaded")


if __name__ == "__main__":
    main()
