"""What a node's relay adds to the answers of a server that it has adopted.

Usage: python -m tests.bench.proxy.adopted [REQUESTS] [STREAMS]

Asks a pretend server directly and through a real node, with the proof of the fleet
token, in turns; then streams with 20 events a second, each with the time of its start.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import uvloop

from edgeserve.errors import NotReached
from edgeserve.http import Origin, Upstream, upstream
from edgeserve.http.channel.opening import FleetChannel
from edgeserve.orders.servers import SERVERS
from node.engines.process import free_port
from tests.fakes.tokens import TOKEN, GivenTokens, report_of
from tests.patience import PATIENCE

EVENTS = 200
JSON = {"content-type": "application/json"}
MESSAGE = b'"model":"bench","messages":[{"role":"user","content":"hello"}]'
CHAT = b"{%b}" % MESSAGE
STREAM = b'{%b,"stream":true,"max_tokens":%d}' % (MESSAGE, EVENTS)


@contextmanager
def running(*argv: str, folder: Path | None = None) -> Generator[psutil.Process]:
    env = dict(os.environ)
    if folder is not None:
        env |= {
            "EDGESERVE_CONFIG_DIR": str(folder),
            "EDGESERVE_STATE_DIR": str(folder),
            "EDGESERVE_MODELS_DIR": str(folder / "none"),
        }
    with subprocess.Popen([sys.executable, "-m", *argv], env=env) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


def cpu(process: psutil.Process) -> float:
    used = process.cpu_times()
    return used.user + used.system


async def whole(pool: Upstream, at: Origin, path: str) -> float:
    """Ask once; returns the seconds."""
    began = time.perf_counter()
    async with pool.ask(at, "POST", path, JSON, CHAT) as answer:
        assert answer.status == 200
        await answer.read()
    return time.perf_counter() - began


async def delays(pool: Upstream, at: Origin, path: str) -> list[float]:
    """Ask for a stream; returns the seconds that each event was on its way."""
    found = list[float]()
    async with pool.ask(at, "POST", path, JSON, STREAM) as answer:
        while piece := await answer.chunk():
            now = time.monotonic_ns()
            _, stamp, rest = piece.rpartition(b'"t":')
            if stamp:
                found.append((now - int(rest.split(b"}")[0])) / 1e9)
    return found


def shown(name: str, seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    p95 = ordered[int(len(ordered) * 0.95)]
    return (
        f"{name}: median {statistics.median(ordered) * 1e6:.0f} µs, p95 {p95 * 1e6:.0f}"
    )


async def until_adopted(url: str) -> None:
    """Wait for the node to listen, and to have found the server."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with suppress(NotReached):
                if (await report_of(url, TOKEN)).servers:
                    return
            await asyncio.sleep(0.2)


async def compare(server: int, port: int, node: psutil.Process, n: int, m: int) -> None:
    channel = FleetChannel(GivenTokens(TOKEN))
    url = f"https://127.0.0.1:{port}"
    await until_adopted(url)
    here, there = Origin("127.0.0.1", server), Origin("127.0.0.1", port, tls=True)
    path = "/v1/chat/completions"
    relayed = f"{SERVERS}/{server}{path}"
    async with (
        upstream(connect_seconds=5) as plain,
        upstream(connect_seconds=5, channel=channel) as proven,
    ):
        direct, through = list[float](), list[float]()
        before = cpu(node)
        for _ in range(n):
            direct.append(await whole(plain, here, path))
            through.append(await whole(proven, there, relayed))
        used = (cpu(node) - before) / n
        print(shown("request, direct", direct))
        print(shown("request, relayed", through))
        print(f"CPU of the node: {used * 1e6:.0f} µs a request")
        before = cpu(node)
        runs = await asyncio.gather(*(delays(plain, here, path) for _ in range(m)))
        idle = cpu(node) - before
        print(shown("event, direct", [each for run in runs for each in run]))
        before = cpu(node)
        runs = await asyncio.gather(*(delays(proven, there, relayed) for _ in range(m)))
        used = (cpu(node) - before - idle) / (m * EVENTS)
        print(shown("event, relayed", [each for run in runs for each in run]))
        print(f"CPU of the node: {used * 1e6:.0f} µs an event")


async def main(requests: int = 2000, streams: int = 8) -> None:
    server, port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "token").write_text(TOKEN)
        argv = ("node", "start", "--port", str(port), "--host", "127.0.0.1")
        adopt = ("--no-advertise", "--adopt-url", f"http://127.0.0.1:{server}")
        with (
            running("tests.bench.proxy.upstream", "x", str(server), "0", "4"),
            running("edgeserve", *argv, *adopt, folder=folder) as node,
        ):
            await compare(server, port, node, requests, streams)


if __name__ == "__main__":
    uvloop.run(main(*map(int, sys.argv[1:])))
