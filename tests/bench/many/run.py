"""A balancer in front of many nodes: `python -m tests.bench.many.run`.

200 pretended nodes with 1,000 engines in three processes, and 10,000 requests. CPU is
the balancer's processor time, memory its proportional set size (PSS).
"""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click
import psutil

from tests.bench.proxy.process import Process, free_ports, running
from tests.bench.routing.decide import body

PROCESSES = 2
PATIENCE = 180.0


@dataclass(frozen=True)
class Fleet:
    """The processes that pretend to be nodes, and their ports."""

    processes: Sequence[subprocess.Popen[str]]
    ports: Sequence[int]

    def tell(self, word: str) -> None:
        """Send each process a word."""
        for each in self.processes:
            assert each.stdin is not None
            each.stdin.write(f"{word}\n")
            each.stdin.flush()

    def sent(self) -> int:
        """Bytes of events that were sent so far."""
        self.tell("count")
        total = 0
        for each in self.processes:
            assert each.stdout is not None
            total += int(each.stdout.readline())
        return total


@contextlib.contextmanager
def fleet(count: int, slots: int) -> Generator[Fleet]:
    """Run the pretended nodes for the length of the block."""
    share = -(-count // PROCESSES)
    parts = [(at, min(share, count - at)) for at in range(0, count, share)]
    command = [sys.executable, "-m", "tests.bench.many.nodes"]
    processes = [
        subprocess.Popen(
            [*command, str(first), str(many), str(slots)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for first, many in parts
    ]
    try:
        ports: list[int] = []
        for each in processes:
            assert each.stdout is not None
            ports += map(int, each.stdout.readline().split())
        yield Fleet(processes, ports)
    finally:
        for each in processes:
            each.terminate()
            each.wait(10)


def get(port: int, path: str) -> tuple[bytes, float]:
    """Return what a route says, and the seconds it took."""
    began = time.perf_counter()
    url = f"http://127.0.0.1:{port}{path}"
    with urllib.request.urlopen(url, timeout=60) as said:
        found: bytes = said.read()
    return found, time.perf_counter() - began


def until_up(port: int, nodes: int) -> float:
    """Wait until so many nodes are up; return the seconds."""
    began = time.perf_counter()
    while True:
        with contextlib.suppress(OSError):
            metrics, _ = get(port, "/metrics")
            up = [
                each
                for each in metrics.decode().splitlines()
                if each.startswith("edgeserve_nodes{") and '"up"' in each
            ]
            if up and float(up[0].split()[-1]) >= nodes:
                return time.perf_counter() - began
        if time.perf_counter() - began > PATIENCE:
            raise TimeoutError("not all nodes were found")
        time.sleep(0.1)


def pss(process: Process) -> float:
    """Proportional set size in MB."""
    return psutil.Process(process.pid).memory_full_info().pss / 1e6


def load(port: int, requests: int, at_once: int, process: Process) -> str:
    """Send chats; return a line about them."""
    before = process.cpu_seconds()
    command = [sys.executable, "-m", "tests.bench.many.load"]
    said = subprocess.run(
        [*command, str(port), str(requests), str(at_once)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    cpu = process.cpu_seconds() - before
    found = json.loads(said)
    took = sorted(found["took"])
    last = took[int(len(took) * 0.99)] * 1e3
    return (
        f"{requests} requests, {at_once} at once: {found['seen']},"
        f" {requests / found['seconds']:.0f}/s, {cpu / requests * 1e6:.0f} µs of CPU"
        f" each, ms p50 {median(took) * 1e3:.0f} p99 {last:.0f}"
    )


def idle(process: Process, seconds: float) -> float:
    """CPU while nothing is asked, in percent of a core."""
    before, began = process.cpu_seconds(), time.perf_counter()
    time.sleep(seconds)
    spent = process.cpu_seconds() - before
    return spent / (time.perf_counter() - began) * 100


def pages(port: int) -> None:
    """Print what it takes to look at the fleet."""
    for path in ("/edgeserve/v1/nodes", "/metrics", "/v1/models"):
        found, seconds = get(port, path)
        print(f"  GET {path}: {len(found) / 1e3:.0f} KB, {seconds * 1e3:.0f} ms")
    lines = get(port, "/metrics")[0].decode().splitlines()
    print(f"  {sum(not each.startswith('#') for each in lines)} series in /metrics")
    question = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        data=json.dumps(
            json.loads(body(2048, 1, "seven")) | {"model": "model-1"}
        ).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(question, timeout=30) as said:
        id_ = said.headers["x-edgeserve-request-id"]
    why, seconds = get(port, f"/edgeserve/v1/requests/{id_}")
    print(f"  why of one request: {len(why) / 1e3:.0f} KB, {seconds * 1e3:.0f} ms")


@click.command()
@click.option("--nodes", default=200)
@click.option("--slots", default=2, help="Of each engine.")
@click.option("--requests", default=10_000)
@click.option("--at-once", default=[8, 64, 200], multiple=True)
@click.option("--idle-seconds", default=20.0)
@click.option("--idle-only", is_flag=True)
def main(
    nodes: int,
    slots: int,
    requests: int,
    at_once: Sequence[int],
    idle_seconds: float,
    *,
    idle_only: bool,
) -> None:
    """Measure, and print figures."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    with tempfile.TemporaryDirectory() as name, fleet(nodes, slots) as pretended:
        folder = Path(name)
        [port] = free_ports(1)
        command = [
            *(sys.executable, "-m", "edgeserve", "balancer", "start", "--no-discover"),
            *("--port", str(port), "--state-dir", str(folder / "state")),
        ]
        for each in pretended.ports:
            command += ["--node", f"http://127.0.0.1:{each}"]
        with running(command, None, folder / "log") as process:
            print(f"{nodes} nodes up after {until_up(port, nodes):.1f} s")
            time.sleep(3)
            spent = process.cpu_seconds()
            print(f"  CPU since the start {spent:.2f} s, PSS {pss(process):.0f} MB")
            time.sleep(10)
            print(f"idle: {idle(process, idle_seconds):.1f} % of a core")
            if not idle_only:
                for each in at_once:
                    print(load(port, requests // len(at_once), each, process))
                print(f"  PSS {pss(process):.0f} MB")
            pages(port)
            print(f"idle again: {idle(process, idle_seconds):.1f} % of a core")
            before, sent = process.cpu_seconds(), pretended.sent()
            pretended.tell("hush")
            time.sleep(0.5)
            seconds = until_up(port, nodes)
            print(f"all streams broken: back after {seconds + 0.5:.1f} s,", end="")
            print(f" CPU {process.cpu_seconds() - before:.2f} s,", end="")
            print(f" {(pretended.sent() - sent) / 1e3:.0f} KB")
            pretended.tell("stir")
            sent = pretended.sent()
            print(f"all change every 5 s: {idle(process, idle_seconds):.1f} %,", end="")
            print(f" {(pretended.sent() - sent) / idle_seconds / 1e3:.0f} KB/s")


if __name__ == "__main__":
    main()
