"""vLLM on the GPU and two llama.cpp nodes on the CPU as one fleet, beside HAProxy.

    python -m tests.bench.gpu.mixed SITE TOKENIZER [--seconds 40] [--rates 2,8]

SITE and TOKENIZER: see `tests.bench.gpu.vllm`. Each contestant gets the same arrivals,
one contestant after another, before the same three servers: EdgeServe, HAProxy in turns
(`roundrobin`) and by fewest connections (`leastconn`), and a burst at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from edgeserve.models.synthetic import Kind, Shape, a_model
from tests.bench.gpu.load import LONGEST_SECONDS, Run, body, run, tokens
from tests.bench.gpu.serving import get, running
from tests.bench.gpu.share import behind
from tests.bench.gpu.vllm import folder, vllm
from tests.bench.proxy.peers import Missing, haproxy
from tests.bench.proxy.process import await_ready, free_ports
from tests.bench.proxy.process import running as started
from tests.bench.rendering import markdown, quantile

LLAMA_1B = Shape(
    layers=16, embedding=2048, feed_forward=8192, heads=32, kv_heads=8,
    vocabulary=49152, context=4096, tied=False,
)  # fmt: skip
TINY = Shape(vocabulary=32_000, context=4096, tied=False)

PROMPT, ANSWER = (64, 384), (16, 48)
"""Tokens, between."""

SLOTS = 4
"""Of each node."""

BURST = 96
COLUMNS = ("load", "contestant", "first p50 s", "p95", "whole p95", "wall", "errors")


@dataclass(frozen=True)
class Arrival:
    """A request: at how many seconds, with what body."""

    at: float
    body: dict[str, Any]


def arrivals(rate: float, seconds: float) -> list[Arrival]:
    """Return Poisson arrivals at `rate` a second; a rate of 0 is a burst."""
    dice = random.Random(f"mixed {rate}")  # noqa: S311 - a benchmark
    found, at = list[Arrival](), 0.0
    while len(found) < BURST if not rate else at < seconds:
        prompt = tokens(dice, dice.randint(*PROMPT), 30_000)
        found.append(Arrival(at, body("lab", prompt, dice.randint(*ANSWER))))
        at += dice.expovariate(rate) if rate else 0.0
    return found


async def played(url: str, load: Sequence[Arrival]) -> tuple[list[Run], int, float]:
    """Send the load; return what came, how many failed, and how long it took."""
    timeout = aiohttp.ClientTimeout(total=LONGEST_SECONDS)
    connector = aiohttp.TCPConnector(limit=0)
    begun = time.monotonic()
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:

        async def one(each: Arrival) -> Run:
            await asyncio.sleep(max(0.0, begun + each.at - time.monotonic()))
            return await run(session, url, each.body)

        done = await asyncio.gather(*map(one, load), return_exceptions=True)
    good = [each for each in done if isinstance(each, Run)]
    for each in done:
        if not isinstance(each, Run):
            print(repr(each)[:300], file=sys.stderr)
    return good, len(done) - len(good), time.monotonic() - begun


@contextmanager
def node(
    name: str, model: Path, port: int, scratch: Path, threads: int
) -> Generator[str]:
    """Run a node with one engine on the CPU; yields its URL once that is ready."""
    flags = (
        *("node", "start", "--port", str(port), "--name", name, "--no-advertise"),
        *("--model", str(model), "--engine", "bundled", "--gpu-layers", "0"),
        *("--threads", str(threads), "--slots", str(SLOTS), "--context", "8192"),
        *("--state-dir", str(scratch / name), "--no-on-demand"),
    )
    with running(scratch / f"{name}.log", *flags) as url:
        deadline = time.monotonic() + 120
        while not any(
            each["state"] == "ready"
            for each in get(f"{url}/edgeserve/v1/node")["engines"]
        ):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} is not ready")
            time.sleep(0.2)
        yield url


@contextmanager
def haproxied(widths: Mapping[int, int], balance: str, scratch: Path) -> Generator[str]:
    """Run HAProxy before these ports; it queues what is more than their widths."""
    [port] = free_ports(1)
    at = scratch / balance.replace(" ", "-")
    at.mkdir()
    command = haproxy(port, list(widths), at, balance)
    config = at / "haproxy.cfg"
    lines = config.read_text().splitlines()
    for each, width in widths.items():
        lines = [
            f"{line} maxconn {width}" if f":{each} " in f"{line} " else line
            for line in lines
        ]
    config.write_text("\n".join([*lines, ""]))
    with started(command, None, at / "log"):
        await_ready(port, 0)
        yield f"http://127.0.0.1:{port}"


def main() -> None:
    given = arguments()
    rows = list[tuple[str, ...]]()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shape = TINY if given.rehearse else LLAMA_1B
        gguf = a_model(scratch / "lab.Q4_0.gguf", shape, kind=Kind.Q4_0, name="lab")
        ports = free_ports(3)
        for name, port in zip(("pc", "laptop"), ports[1:], strict=True):
            stack.enter_context(node(name, gguf, port, scratch, given.threads))
        if given.rehearse:
            stack.enter_context(node("gpu", gguf, ports[0], scratch, given.threads))
        else:
            at = folder(scratch / "m1", given.tokenizer, LLAMA_1B)
            flags = ("--max-num-seqs", str(given.width))
            log = scratch / "vllm.log"
            stack.enter_context(vllm(at, given.site, ports[0], log, *flags))
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        nodes = [flag for url in urls[1:] for flag in ("--node", url)]
        widths = dict(zip(ports, (given.width, SLOTS, SLOTS), strict=True))
        gpu = ("--node" if given.rehearse else "--server", urls[0])
        contestants = {
            "EdgeServe": behind(scratch, *gpu, *nodes),
            "HAProxy roundrobin": haproxied(widths, "roundrobin", scratch),
            "HAProxy leastconn": haproxied(widths, "leastconn", scratch),
            "vLLM alone": _alone(urls[0]),
        }
        for name, contestant in contestants.items():
            try:
                with contestant as url:
                    time.sleep(given.calm)  # a balancer measures new nodes
                    for rate in map(float, given.rates.split(",")):
                        rows.append(_row(name, url, rate, given.seconds))
            except (Missing, OSError, RuntimeError, TimeoutError) as error:
                print(f"{name} is left out: {error!r}", file=sys.stderr)
    print(markdown(COLUMNS, sorted(rows, key=lambda each: each[0])))


@contextmanager
def _alone(url: str) -> Generator[str]:
    yield url


def _row(name: str, url: str, rate: float, seconds: float) -> tuple[str, ...]:
    good, failed, wall = asyncio.run(played(url, arrivals(rate, seconds)))
    first = [each.first - each.asked for each in good]
    whole = [each.last - each.asked for each in good]
    row = (
        f"{rate:g} a second" if rate else f"burst of {BURST}",
        name,
        f"{quantile(first, 0.5):.3f}",
        f"{quantile(first, 0.95):.3f}",
        f"{quantile(whole, 0.95):.2f}",
        f"{wall:.1f}",
        f"{failed} of {failed + len(good)}",
    )
    print(json.dumps(row), flush=True)
    return row


def arguments() -> argparse.Namespace:
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("site", type=Path, nargs="?")
    flags.add_argument("tokenizer", type=Path, nargs="?")
    flags.add_argument("--rehearse", action="store_true", help="tiny, without vLLM")
    flags.add_argument("--seconds", type=float, default=40.0)
    flags.add_argument("--rates", default="2,8,0", help="a second; 0 is a burst")
    flags.add_argument("--threads", type=int, default=5, help="of each node")
    flags.add_argument("--width", type=int, default=16, help="vLLM's largest batch")
    flags.add_argument("--calm", type=float, default=15.0, help="seconds before a load")
    return flags.parse_args()


if __name__ == "__main__":
    main()
