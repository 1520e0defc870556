"""Compare how load balancers route, side by side, over real sockets.

Usage: python -m tests.bench.routing.compare [--only NAME]... [--settle SECONDS]

A Pi, a laptop and a GPU box are pretended (`machines.py`), with their slots and with
llama.cpp's cache rules. The first row has the GPU to itself: what could be reached.
Cache-aware routers send a whole burst to where its first request went; whether that is
the GPU or the Pi is luck, so look at the conversations too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from node.engines.process import free_port
from tests.bench.proxy import peers
from tests.bench.proxy.peers import Missing
from tests.bench.proxy.process import await_ready, running
from tests.bench.rendering import markdown, quantile
from tests.bench.routing.load import LOADS, run

ALONE = "the GPU alone"
PROXY_CORE = 0
Ports = dict[str, tuple[int, int]]
"""Of each machine: the node's port, and its engine's."""
Command = Callable[[int, Ports, Path], list[str]]


def engines(ports: Ports) -> list[int]:
    return [engine for _, engine in ports.values()]


def nginx(balance: str, only: Sequence[str] = ()) -> Command:
    def command(port: int, ports: Ports, folder: Path) -> list[str]:
        used = {name: ports[name] for name in only or ports}
        return peers.nginx(port, engines(used), folder, balance)

    return command


def haproxy(port: int, ports: Ports, folder: Path) -> list[str]:
    return peers.haproxy(port, engines(ports), folder, "leastconn")


def router(program: Sequence[str], *flags: str) -> Command:
    def command(port: int, ports: Ports, _: Path) -> list[str]:
        return peers.cache_aware(program, port, engines(ports), *flags)

    return command


def edgeserve(port: int, ports: Ports, folder: Path) -> list[str]:
    return peers.balancer(port, [node for node, _ in ports.values()], folder)


CONTESTANTS: dict[str, Command] = {
    ALONE: nginx("", ["gpu"]),
    "nginx least_conn": nginx("least_conn;"),
    "nginx random two": nginx("random two least_conn;"),
    "HAProxy leastconn": haproxy,
    "vllm-router cache_aware": router(peers.VLLM),
    "sglang-router cache_aware": router(peers.SGLANG),
    "sglang-router, tuned": router(peers.SGLANG, "--balance-abs-threshold", "2"),
    "EdgeServe": edgeserve,
}


@dataclass(frozen=True)
class Figures:
    """One balancer under one load. Seconds, and shares from 0 to 1."""

    name: str
    load: str
    total: float
    p50: float
    p95: float
    p99: float
    whole_p95: float
    hits: float
    shares: dict[str, float]
    errors: int


@contextlib.contextmanager
def machines() -> Generator[tuple[Ports, dict[str, Any]]]:
    """Run new machines; their counts are complete when the block has ended."""
    command = [sys.executable, "-m", "tests.bench.routing.machines"]
    did: dict[str, Any] = {}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stdout is not None
        try:
            yield json.loads(child.stdout.readline()), did
        finally:
            child.terminate()
            did.update(json.loads(child.stdout.readline() or "{}"))


def contest(
    name: str, command: Command, load: str, folder: Path, settle: float
) -> Figures:
    """Run one balancer with new machines, under one load."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    with machines() as (ports, did):
        argv = command(port, ports, folder)
        with running(argv, PROXY_CORE, folder / "log"):
            await_ready(port, len(ports) if command is edgeserve else 0)
            time.sleep(settle)
            seen, total = asyncio.run(run(port, LOADS[load]))
    answers = sum(each["answers"] for each in did.values())
    cached = sum(each["cached"] for each in did.values())
    tokens = cached + sum(each["read"] for each in did.values())
    return Figures(
        name=name,
        load=load,
        total=total,
        p50=quantile(seen.first, 0.5),
        p95=quantile(seen.first, 0.95),
        p99=quantile(seen.first, 0.99),
        whole_p95=quantile(seen.whole, 0.95),
        hits=cached / max(tokens, 1),
        shares={name: each["answers"] / max(answers, 1) for name, each in did.items()},
        errors=seen.errors,
    )


COLUMNS = (
    "balancer", "total s", "first p50", "p95", "p99", "whole p95", "hits",
    "pi", "laptop", "gpu", "errors",
)  # fmt: skip


def table(results: Sequence[Figures]) -> str:
    """Render a Markdown table."""
    return markdown(COLUMNS, map(_row, results))


def _row(each: Figures) -> tuple[str, ...]:
    times = (each.total, each.p50, each.p95, each.p99, each.whole_p95)
    shares = (each.shares.get(name, 0.0) for name in ("pi", "laptop", "gpu"))
    return (
        each.name,
        *(f"{seconds:.2f}" for seconds in times),
        f"{each.hits:.0%}",
        *(f"{share:.0%}" for share in shares),
        str(each.errors),
    )


def attempt(
    name: str, command: Command, load: str, folder: Path, settle: float
) -> Figures | None:
    """Return it, or None and a sentence why not."""
    try:
        return contest(name, command, load, folder, settle)
    except (Missing, TimeoutError, RuntimeError) as error:
        print(f"{name} is left out: {error}", file=sys.stderr)
        return None


@click.command()
@click.option("--only", multiple=True, help="Names, or parts of names. Repeat.")
@click.option("--load", "loads", multiple=True, type=click.Choice(list(LOADS)))
@click.option("--settle", default=0.0, help="Seconds between ready and load.")
@click.option("--json", "out", default="build/bench-routing.json", type=Path)
def main(
    only: tuple[str, ...], loads: tuple[str, ...], settle: float, out: Path
) -> None:
    """Compare how load balancers route, side by side."""
    peers.install()
    chosen = {
        name: command
        for name, command in CONTESTANTS.items()
        if not only or any(part in name for part in only)
    }
    results: list[Figures] = []
    with tempfile.TemporaryDirectory() as name:
        for load in loads or LOADS:
            rows = [
                attempt(peer, command, load, Path(name) / f"{load}{number}", settle)
                for number, (peer, command) in enumerate(chosen.items())
            ]
            found = [each for each in rows if each]
            print(f"\n{load}\n\n{table(found)}", flush=True)
            results += found
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps([asdict(each) for each in results], indent=1))


if __name__ == "__main__":
    main()
