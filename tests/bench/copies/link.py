"""Rate of a copy from node to node, beside a plain copy over the same link.

Three machines in network namespaces: two nodes, with the fleet token, and a balancer;
the link of the node that has the model is limited by `tc`. Needs root.

Usage: python -m tests.bench.copies.link [--mib 1024] [--mbit 1000]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from tests.fakes.gguf import a_model
from tests.fleet.fleet import Fleet, Process, answer, fleet, until
from tests.fleet.llama_server import script
from tests.fleet.network import Host, impossible

MIB = 2**20
MODEL = "large.Q8_0.gguf"


def inside(host: Host, *argv: str) -> None:
    """Run a program on a host, or fail with what it said."""
    command = ["ip", "netns", "exec", host.namespace, *argv]
    subprocess.run(command, check=True, timeout=600)


def plain(source: Host, folder: Path, to: Host, target: Path) -> float:
    """Copy with curl from Python's own server; return the seconds."""
    argv = [sys.executable, "-m", "http.server", "9000", "--directory", str(folder)]
    serving = source.spawn(argv, dict(os.environ), folder / "log.txt")
    try:
        url = f"http://{source.address}:9000/{MODEL}"
        retry = ("--retry", "20", "--retry-connrefused", "--retry-delay", "1")
        inside(to, "curl", "-sf", *retry, "-r", "0-0", "-o", "/dev/null", url)
        began = time.perf_counter()
        inside(to, "curl", "-sf", "-o", str(target), url)
        seconds = time.perf_counter() - began
    finally:
        serving.kill()
        serving.wait()
    target.unlink()
    return seconds


async def pulled(made: Fleet, balancer: Host, key: str) -> tuple[float, Any]:
    """Have the second node pull the model; return the seconds, and its last report."""
    order = {"source": "large", "nodes": ["b"]}
    headers = {"authorization": f"Bearer {key}"}
    path = "/edgeserve/v1/pulls"
    async with made.asking(f"http://{balancer.address}:8080") as session:
        began = time.perf_counter()
        async with session.post(path, json=order, headers=headers) as answering:
            (row,) = await answering.json()
        while True:
            async with session.get(path, headers=headers) as answering:
                rows = await answering.json()
            for each in rows:
                if each["pull"]["id"] == row["pull"]["id"]:
                    row = each
            if row["pull"]["state"] in {"done", "failed", "cancelled"}:
                return time.perf_counter() - began, row["pull"]
            await asyncio.sleep(0.02)


async def up(made: Fleet, url: str, key: str) -> None:
    """Wait until the balancer follows both nodes."""

    async def ask() -> list[str]:
        headers = {"authorization": f"Bearer {key}"}
        async with (
            made.asking(url) as session,
            session.get("/edgeserve/v1/nodes", headers=headers) as answering,
        ):
            return [each["state"] for each in await answering.json()]

    await answer(ask, lambda states: states == ["up", "up"], "both nodes are up")


async def measured(folder: Path, mib: int, mbit: int) -> None:
    """Print the figures."""
    server = str(script(folder / "llama-server", "--decode", "500"))
    with fleet(folder) as made:
        a, b, c = (made.network.host(name) for name in ("a", "b", "balancer"))
        models = folder / "a-node" / "models"
        models.mkdir(parents=True)
        with a_model(models / MODEL).open("ab") as file:
            for _ in range(mib):
                file.write(os.urandom(MIB))
        nodes = [
            made.node(host, "--name", host.name, "--llama-server", server)
            for host in (a, b)
        ]
        balancer = made.balancer(c)
        key_file = balancer.folder / "state" / "admin-8080.key"
        await until(key_file.exists, "the balancer has begun")
        key = key_file.read_text().strip()
        await up(made, f"http://{c.address}:8080", key)
        rate = f"{mbit}mbit"
        inside(
            a,
            *("tc", "qdisc", "add", "dev", "eth0", "root", "tbf"),
            *("rate", rate, "burst", "256kb", "latency", "50ms"),
        )
        plainly = [plain(a, models, b, folder / "copy") for _ in range(2)]
        target = folder / "b-node" / "models" / MODEL
        copies, used, before = list[float](), list[float](), list[float]()
        for _ in range(3):
            before = [processor_seconds(each) for each in nodes]
            seconds, report = await pulled(made, c, key)
            used = [processor_seconds(each) for each in nodes]
            if report["state"] != "done":
                raise RuntimeError(report)
            copies.append(seconds)
            target.unlink()
            await asyncio.sleep(3)  # its engine leaves
        plainly += [plain(a, models, b, folder / "copy")]
        best = min(plainly)
        print(f"{mib} MiB over {mbit} Mbit/s; plain: {shown(plainly, mib)}")
        print(f"node to node: {shown(copies, mib)}; the first computes checksums")
        sent, got = (1024 * (u - b) / mib for u, b in zip(used, before, strict=True))
        print(f"processor: {sent:.1f} s/GiB where it is, {got:.1f} s/GiB where it goes")
        print(f"share of the plain rate: {best / min(copies[1:]):.3f}")


def processor_seconds(process: Process) -> float:
    """Return the processor time that a process has used."""
    used = psutil.Process(process.pid).cpu_times()
    return used.user + used.system


def shown(seconds: list[float], mib: int) -> str:
    """Return times and the best rate."""
    each = ", ".join(f"{one:.2f} s" for one in seconds)
    return f"{each} ({mib / min(seconds):.0f} MiB/s)"


def main() -> None:
    """Measure as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--mbit", type=int, default=1000)
    given = parser.parse_args()
    if why := impossible():
        sys.exit(why)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measured(Path(folder), given.mib, given.mbit))


if __name__ == "__main__":
    main()
