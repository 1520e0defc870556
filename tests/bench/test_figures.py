"""What EdgeServe costs a machine, measured on this one: `make bench`."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import psutil
import pytest

from edgeserve.cli.chat import message
from edgeserve.cli.client import Endpoint

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

EDGESERVE = [sys.executable, "-m", "edgeserve"]
MIB = 2**20
REQUESTS = 200
IDLE_SECONDS = 10.0


@pytest.fixture(scope="module")
def served(
    smollm2: Path,
) -> Generator[tuple[Endpoint, dict[str, psutil.Process]]]:
    """One machine that serves, and its processes by name."""
    argv = [*EDGESERVE, "up", "--port", "0", "--model", str(smollm2)]
    begun = time.perf_counter()
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        print(f"\nup to ready                  {time.perf_counter() - begun:8.2f} s")
        children = psutil.Process(process.pid).children()
        yield Endpoint(url), {child.cmdline()[3]: child for child in children}
        process.terminate()


def test_how_long_help_takes() -> None:
    times = list[float]()
    for _ in range(20):
        begun = time.perf_counter()
        subprocess.run([*EDGESERVE, "--help"], stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - begun)

    print(f"\nedgeserve --help, median     {sorted(times)[10] * 1000:8.0f} ms")


def test_what_it_costs_to_be_there(
    served: tuple[Endpoint, dict[str, psutil.Process]],
) -> None:
    endpoint, processes = served
    for name, process in processes.items():
        before = process.cpu_times()
        time.sleep(IDLE_SECONDS)
        after = process.cpu_times()
        busy = (after.user + after.system - before.user - before.system) / IDLE_SECONDS
        resident = process.memory_info().rss / MIB
        print(f"{name + ', idle':<28} {resident:8.1f} MiB, {busy:.2%} of a core")

    question = [message("user", "Say yes.")]
    body = {"messages": question, "max_tokens": 2, "stream": True}
    for _ in range(REQUESTS):
        list(
            endpoint.post(
                "/v1/chat/completions", {**body, "model": "smollm2-135m-instruct"}
            )
        )

    for name, process in processes.items():
        resident = process.memory_info().rss / MIB
        print(f"{name}, after {REQUESTS} requests".ljust(28), f"{resident:8.1f} MiB")
