"""Time of a connection to a node, plain and with TLS and proof, side by side.

Usage: python -m tests.bench.proxy.handshakes [CONNECTIONS]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import uvloop

from edgeserve.http import Origin, upstream
from edgeserve.http.channel.opening import FleetChannel
from tests.bench.proxy.compare import machine, upstreams
from tests.fakes.tokens import TOKEN, GivenTokens


async def opened(port: int, channel: FleetChannel | None, count: int) -> list[float]:
    """Return the seconds of `count` first requests, each on a connection of its own."""
    seconds = list[float]()
    for _ in range(count):
        async with upstream(connect_seconds=30, channel=channel) as pool:
            began = time.perf_counter()
            async with pool.ask(Origin("127.0.0.1", port), "GET", "/", {}) as answer:
                await answer.read()
            seconds.append(time.perf_counter() - began)
    return seconds


async def compared(plain: int, encrypted: int, count: int) -> str:
    """Measure both in turns."""
    found: dict[str, list[float]] = {"plain": [], "encrypted": []}
    channel = FleetChannel(GivenTokens(TOKEN))
    for _ in range(5):
        found["plain"] += await opened(plain, None, count)
        found["encrypted"] += await opened(encrypted, channel, count)
    return "\n".join(
        f"{name}: {1e3 * median(each):.2f} ms median,"
        f" {1e3 * sorted(each)[int(0.99 * len(each))]:.2f} ms p99"
        for name, each in found.items()
    )


def main(count: int) -> None:
    """Print both figures."""
    with tempfile.TemporaryDirectory() as folder, upstreams(Path(folder)) as ports:
        print(f"{machine()}; first request on a new connection")
        print(uvloop.run(compared(ports[0], ports[2], count)))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
