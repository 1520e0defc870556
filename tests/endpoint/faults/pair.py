"""Two nodes with real engines and a balancer, as processes; what is done to them."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from tests.endpoint.conftest import running_process

BOUND_SECONDS = 120.0
LOOK_SECONDS = 0.1
NODES = ("left", "right")


@dataclass(frozen=True)
class Node:
    """One node: its agent's process, and the model file of its own."""

    agent: psutil.Process
    model: Path

    @property
    def engine(self) -> psutil.Process:
        """The engine's process: the one that holds the model."""
        found = self.agent.children(recursive=True)
        return max(found, key=lambda each: each.memory_info().rss)


@dataclass(frozen=True)
class Pair:
    """Where the balancer listens, and its nodes by name."""

    url: str
    nodes: dict[str, Node]

    async def engines(self, session: aiohttp.ClientSession) -> dict[str, Any]:
        """What each node says of its engine, and the balancer of its health."""
        async with session.get("/edgeserve/v1/nodes") as response:
            nodes = await response.json()
        return {
            each["report"]["name"]: engine
            | {"health": "".join((each.get("health") or {}).values())}
            for each in nodes
            for engine in (each["report"] or {"engines": ()})["engines"]
            if engine["pinned"]
        }

    async def epoch(self, session: aiohttp.ClientSession, name: str) -> int:
        """How often a node's engine has been started."""
        epoch: int = (await self.engines(session))[name]["epoch"]
        return epoch

    async def starts(self, session: aiohttp.ClientSession) -> int:
        """How often all of them have."""
        engines = await self.engines(session)
        return sum(each["epoch"] for each in engines.values())

    async def serve(self, session: aiohttp.ClientSession, **epochs: int) -> None:
        """Wait until both engines serve and are trusted, in these lives or later.

        An engine that failed too often in a row waits for its file to be replaced;
        that is seen to.
        """
        deadline = time.monotonic() + BOUND_SECONDS
        while time.monotonic() < deadline:
            engines = await self.engines(session)
            for name, engine in engines.items():
                if engine["state"] == "quarantined":
                    os.utime(self.nodes[name].model)
            if len(engines) == len(self.nodes) and all(
                _serves(engine, epochs.get(name, 0)) for name, engine in engines.items()
            ):
                return
            await asyncio.sleep(LOOK_SECONDS)
        raise TimeoutError(f"the engines do not serve: {await self.engines(session)}")

    def strike(self, name: str, deed: signal.Signals) -> None:
        """Send a signal to a node's engine."""
        self.nodes[name].engine.send_signal(deed)


def _serves(engine: dict[str, Any], epoch: int) -> bool:
    well = engine["state"] in {"ready", "busy"} and engine["epoch"] >= epoch
    return well and engine["health"] not in {"open", "half-open"}


@contextmanager
def a_pair(
    model: Path, home: Path, *more: str, names: Sequence[str] = NODES
) -> Generator[Pair]:
    """Run it until the block ends. Each engine has four slots and one thread.

    `more` are flags of each node. `names` may name one node only.
    """
    with ExitStack() as stack:
        nodes: dict[str, Node] = {}
        flags: list[str] = []
        for name in names:
            own = home / name / model.name
            own.parent.mkdir(parents=True)
            shutil.copyfile(model, own)
            url, pid = stack.enter_context(_a_node(name, own, home, *more))
            nodes[name] = Node(psutil.Process(pid), own)
            flags += ["--node", url]
        url, _ = stack.enter_context(
            running_process(
                "balancer",
                *("--no-discover", "--no-calibrate", "--no-owner-first"),
                *flags,
                home=home,
            )
        )
        yield Pair(url, nodes)


def _a_node(name: str, model: Path, home: Path, *more: str) -> Any:
    return running_process(
        "node",
        *("--engine", "bundled", "--model", str(model), "--name", name),
        "--no-on-demand",
        *("--slots", "4", "--context", "1024", "--threads", "1", "--no-advertise"),
        *more,
        home=home / name,
    )
