"""Compare proxies side by side in one run: one core for the proxy, one for the rest.

Usage: python -m tests.bench.proxy.compare [--only NAME]... [--rounds N] [--json FILE]
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import resource
import sys
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import click
import uvloop

from tests.bench.proxy.load import (
    Rate,
    Spread,
    Streams,
    at_a_pace,
    back_to_back,
    many_streams,
)
from tests.bench.proxy.peers import PEERS, Missing, Peer, install
from tests.bench.proxy.process import Process, await_chat, free_ports, running
from tests.bench.rendering import markdown

PROXY_CORE, OTHER_CORE = 0, 1
PACE = 500
STREAMS, TOKENS, RAMP = 1000, 200, 2.0
STEADY_SECONDS = 6.0
SLOTS = 512


@dataclass(frozen=True)
class Figures:
    """One contestant in one round. Times in ms, CPU in µs, memory in bytes."""

    name: str
    rps_1: float
    rps_32: float
    cpu_request: float
    errors: int
    p50: float
    p99: float
    events_per_second: float
    cpu_event: float
    event_p50: float
    event_p99: float
    broken: int
    rss_idle: int
    rss_stream: float


@contextlib.contextmanager
def upstreams(folder: Path) -> Generator[list[int]]:
    """Run two pretend servers; yields their plain ports, then the encrypted ones."""
    ports = free_ports(4)
    with contextlib.ExitStack() as stack:
        for name, plain, encrypted in zip(
            ("one", "two"), ports, ports[2:], strict=False
        ):
            arguments = [name, str(plain), str(encrypted), str(SLOTS)]
            command = [sys.executable, "-m", "tests.bench.proxy.upstream", *arguments]
            stack.enter_context(running(command, OTHER_CORE, folder / "upstream.log"))
            await_chat(plain)
        yield ports


def measured(name: str, port: int, process: Process | None, folder: Path) -> Figures:
    """Put one contestant, or nothing at all, through everything."""
    await_chat(port)
    idle = process.resident() if process else 0
    back_to_back(port, 32, 1, folder)
    one = back_to_back(port, 1, 3, folder)
    rate, cpu = _with_cpu(process, port, folder)
    pace = uvloop.run(at_a_pace(port, PACE, 4.0))
    streams = uvloop.run(_streams(port, process))
    return Figures(
        name=name,
        rps_1=one.per_second,
        rps_32=rate.per_second,
        cpu_request=cpu * 1e6 / max(rate.requests, 1),
        errors=one.errors + rate.errors,
        p50=pace.p50,
        p99=pace.p99,
        events_per_second=streams.events / STEADY_SECONDS,
        cpu_event=streams.cpu * 1e6 / max(streams.events, 1),
        event_p50=streams.late.p50,
        event_p99=streams.late.p99,
        broken=streams.broken,
        rss_idle=idle,
        rss_stream=(streams.resident - idle) / STREAMS if process else 0.0,
    )


def _with_cpu(process: Process | None, port: int, folder: Path) -> tuple[Rate, float]:
    before = process.cpu_seconds() if process else 0.0
    rate = back_to_back(port, 32, 5, folder)
    return rate, (process.cpu_seconds() if process else 0.0) - before


@dataclass(frozen=True)
class Steady:
    """The steady part of many streams: all are open, none has ended."""

    events: int
    cpu: float
    late: Spread
    broken: int
    resident: int


async def _streams(port: int, process: Process | None) -> Steady:
    seen = Streams()
    async with asyncio.TaskGroup() as group:
        group.create_task(many_streams(port, STREAMS, TOKENS, RAMP, seen))
        await asyncio.sleep(RAMP + 0.7)
        events, late = seen.events, len(seen.late)
        cpu = process.cpu_seconds() if process else 0.0
        await asyncio.sleep(STEADY_SECONDS)
        events, late_now = seen.events - events, seen.late[late:]
        cpu = (process.cpu_seconds() if process else 0.0) - cpu
        resident = process.resident() if process else 0
    return Steady(events, cpu, Spread.of(late_now), seen.broken, resident)


def contest(peer: Peer, ports: Sequence[int], folder: Path) -> Figures | None:
    """Measure one contestant, or say why not."""
    own = folder / peer.name.replace(" ", "-").replace(",", "")
    own.mkdir(exist_ok=True)
    [port] = free_ports(1)
    try:
        upstream_ports = ports[2:] if peer.encrypted else ports[:2]
        command = peer.command(port, upstream_ports, own)
        with running(command, PROXY_CORE, own / "log") as process:
            return measured(peer.name, port, process, own)
    except (Missing, TimeoutError, RuntimeError) as error:
        print(f"{peer.name} is left out: {error}", file=sys.stderr)
        with contextlib.suppress(OSError):
            print((own / "log").read_text(errors="replace")[-2000:], file=sys.stderr)
        return None


def medians(rounds: Sequence[Figures]) -> Figures:
    """Merge the rounds of one contestant."""
    rows = [asdict(each) for each in rounds]
    merged = {key: median(row[key] for row in rows) for key in rows[0] if key != "name"}
    return Figures(name=rounds[0].name, **merged)


COLUMNS = (
    "proxy", "req/s, 1 conn", "req/s, 32 conns", "CPU µs/req", "added ms p50", "p99",
    "events/s", "CPU µs/event", "event ms p50", "p99", "idle MB", "KB/stream",
    "errors",
)  # fmt: skip


def row(each: Figures, direct: Figures) -> tuple[str, ...]:
    """Render one line; latencies of chats are what the proxy adds to a direct one."""
    return (
        each.name,
        f"{each.rps_1:,.0f}",
        f"{each.rps_32:,.0f}",
        f"{each.cpu_request:.0f}",
        f"{each.p50 - direct.p50:.2f}",
        f"{each.p99 - direct.p99:.2f}",
        f"{each.events_per_second:,.0f}",
        f"{each.cpu_event:.0f}",
        f"{each.event_p50:.1f}",
        f"{each.event_p99:.1f}",
        f"{each.rss_idle / 1e6:.0f}",
        f"{each.rss_stream / 1e3:.0f}",
        f"{each.errors + each.broken:.0f}",
    )


def table(results: Sequence[Figures]) -> str:
    """Render a Markdown table; the first result is the direct one."""
    return markdown(COLUMNS, (row(each, results[0]) for each in results))


def machine() -> str:
    """Name the machine the figures belong to."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name, version = (
                    line.partition(":")[2].strip(),
                    platform.python_version(),
                )
                return f"{name}, {os.cpu_count()} cores, Python {version}"
    return platform.platform()


@click.command()
@click.option("--only", multiple=True, help="Names, or parts of names. Repeat.")
@click.option("--rounds", default=1, help="Rounds; the medians count.")
@click.option("--json", "out", default="build/bench-proxy.json", type=Path)
def main(only: tuple[str, ...], rounds: int, out: Path) -> None:
    """Compare proxies side by side in one run."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    os.sched_setaffinity(0, {OTHER_CORE})
    install()
    peers = [p for p in PEERS if not only or any(part in p.name for part in only)]
    found: dict[str, list[Figures]] = {}
    with tempfile.TemporaryDirectory() as name, upstreams(Path(name)) as ports:
        for _ in range(rounds):
            direct = measured("direct", ports[0], None, Path(name))
            found.setdefault("direct", []).append(direct)
            for peer in peers:
                if figures := contest(peer, ports, Path(name)):
                    found.setdefault(peer.name, []).append(figures)
                    print(*row(figures, direct), sep="  ", file=sys.stderr)
    results = [medians(each) for each in found.values()]
    print(f"{machine()}; {STREAMS} streams of 20 events/s\n\n{table(results)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = [asdict(each) for each in results]
    out.write_text(json.dumps({"machine": machine(), "results": rows}, indent=1))


if __name__ == "__main__":
    main()
