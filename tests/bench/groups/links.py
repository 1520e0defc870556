"""Speed of groups over networks of several shapes, beside one machine.

Each group is measured right after the engine that serves alone on the head's machine,
as others may use that meanwhile. The nodes are real, on loopback, with llama.cpp's own
programs; a relay between head and workers has the rate and the delay of a network.
`NATIVE_STATE_DIR` names a build.

Usage: python -m tests.bench.groups.links MODEL.gguf [--workers 1] [--threads 1]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Generator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

from edgeserve.orders.groups import DISSOLVE, LINK, DissolveGroup, MeasureLink, NodeLink
from edgeserve.wire import decode
from tests.bench.fleet.throttle import CGROUPS, Cgroup
from tests.fakes.shaped import MBIT, Shape, shaped
from tests.node.groups.grouped import group
from tests.node.groups.real import HERE, VARIANT, RealNode, real_nodes

SHAPES = (
    Shape("1 Gbit/s", 1000 * MBIT, 0.0),
    Shape("1 Gbit/s, 5 ms", 1000 * MBIT, 0.0025),
    Shape("100 Mbit/s", 100 * MBIT, 0.0),
    Shape("100 Mbit/s, 5 ms", 100 * MBIT, 0.0025),
)
TIMES = 3
TOKENS = 64
PROMPT = "Once upon a time there was a small machine that could not sleep. " * 16


async def speeds(head: RealNode, engine: str) -> tuple[float, float]:
    """Return tokens/s, reading and writing."""
    found = list[dict[str, Any]]()
    for _ in range(TIMES):
        found.append((await head.complete(engine, TOKENS, PROMPT))["timings"])
    read = median(each["prompt_per_second"] for each in found)
    return read, median(each["predicted_per_second"] for each in found)


async def gone(head: RealNode) -> None:
    """Dissolve the group, and wait for its end."""
    await head.post(DISSOLVE, DissolveGroup(variant=VARIANT))
    await head.until(lambda report: group(report) is None)


@contextmanager
def preferred() -> Generator[None]:
    """Come before other programs of this machine, where a cgroup can be made."""
    with ExitStack() as stack:
        with suppress(OSError):
            parent = CGROUPS / "cpu" if (CGROUPS / "cpu").exists() else CGROUPS
            mine = Cgroup.make(parent, f"edgeserve-bench-{os.getpid()}")
            stack.callback(mine.remove)
            mine.take(os.getpid())
        yield


def row(
    name: str,
    load: float,
    link: NodeLink,
    alone: tuple[float, float],
    grouped: tuple[float, float],
) -> str:
    """Return a row of the table."""
    trip = f"{1000 * link.round_trip:.2f} ms"
    rate = f"{link.bytes_per_second / MBIT:.0f} Mbit/s"
    read = f"{grouped[0]:.0f} of {alone[0]:.0f}"
    write = f"{grouped[1]:.1f} of {alone[1]:.1f}"
    return f"| {name} | {trip} | {rate} | {load:.1f} | {read} | {write} |"


async def measured(model: Path, workers: int, threads: int) -> None:
    """Print the table."""
    names = ("head", *(f"worker{at + 1}" for at in range(workers)))
    flags = (*HERE, "--threads", str(threads), "--slots", "1", "--context", "1024")
    async with AsyncExitStack() as stack:
        stack.enter_context(preferred())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        nodes = await stack.enter_async_context(
            real_nodes(folder, model, *names, flags=flags)
        )
        head, others = nodes[0], nodes[1:]
        await head.until(lambda report: any(e.state == "ready" for e in report.engines))
        print("| network | round trip | rate | load s | read tok/s | write tok/s |")
        print("| --- | --- | --- | --- | --- | --- |")
        for shape in (None, *SHAPES):
            async with AsyncExitStack() as links:
                for each in others:
                    each.urls = ()
                    if shape is not None:
                        at = await links.enter_async_context(shaped(each.origin, shape))
                        each.urls = (at.url,)
                members = [await each.worker(1 / len(nodes)) for each in others]
                first = members[0]
                order = MeasureLink(node=first.node, urls=first.urls)
                _, body = await head.post(LINK, order)
                began = time.monotonic()
                await head.form(*members)
                load = time.monotonic() - began
                alone = await speeds(head, VARIANT)
                found = await speeds(head, f"{VARIANT}@group")
                await gone(head)
            name = shape.name if shape else "loopback"
            print(row(name, load, decode(body, NodeLink), alone, found), flush=True)


def main() -> None:
    """Measure."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("model", type=Path)
    flags.add_argument("--workers", type=int, default=1)
    flags.add_argument("--threads", type=int, default=1)
    given = flags.parse_args()
    asyncio.run(measured(given.model, given.workers, given.threads))


if __name__ == "__main__":
    main()
