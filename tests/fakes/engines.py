"""Engines for tests: the fake llama-server as a child, and specs to launch."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgeserve.config.settings import NodeSettings
from edgeserve.wire import EngineReport, EngineState, Launch
from node.engines.base import Command, Engine, EngineSpec
from node.supervision.fallbacks import StartupFallbacks
from node.supervision.liveness import Intervals
from node.supervision.supervisor import Supervisor
from tests.fakes.aiohttp_relay import upstream
from tests.patience import PATIENCE

QUICK = Intervals(ready=0.02, progress=0.1, file=0.05, backoff=0.02)
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class FakeEngine:
    """`python -m tests.fakes.llama` with these flags, as an engine."""

    flags: tuple[str, ...] = ()
    kind: Literal["fake"] = "fake"
    build: str = "b0-fake"

    def command(self, spec: EngineSpec, *, port: int, api_key: str) -> Command:
        """See `Engine.command`."""
        argv = (sys.executable, "-m", "tests.fakes.llama", "--port", str(port))
        shape = ("--slots", str(spec.launch.slots), "--model", spec.variant)
        path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
        env = {"LLAMA_API_KEY": api_key, "PYTHONPATH": path}
        return Command((*argv, *shape, *self.flags), env)


def a_spec(**changes: Any) -> EngineSpec:
    """Describe a small engine, changed as asked."""
    spec = EngineSpec(
        id="fake:Q4_1",
        model="fake",
        variant="fake:Q4_1",
        path=Path("fake.gguf"),
        role="generate",
        abilities=("chat", "completion"),
        launch=Launch(slots=2, context=2048, batch=128, threads=2),
    )
    return dataclasses.replace(spec, **changes)


class Watched:
    """What a supervisor reported, and a way to wait for the next thing."""

    def __init__(self) -> None:
        self.supervisor: Supervisor | None = None
        self.reports: list[EngineReport] = []
        self._news = asyncio.Event()

    def changed(self) -> None:
        """Take down the report."""
        if self.supervisor is not None:
            self.reports.append(self.supervisor.report)
            self._news.set()

    async def until(self, state: EngineState, epoch: int = 0) -> EngineReport:
        """Wait for a state in this or a later life of the engine."""

        def met(report: EngineReport) -> bool:
            return report.state == state and report.epoch >= epoch

        async with asyncio.timeout(PATIENCE):
            while True:
                for report in self.reports:
                    if met(report):
                        return report
                self._news.clear()
                await self._news.wait()

    @property
    def states(self) -> list[EngineState]:
        """The states in order, repetitions left out."""
        found: list[EngineState] = []
        for report in self.reports:
            if not found or found[-1] != report.state:
                found.append(report.state)
        return found


@asynccontextmanager
async def watching(
    engine: Engine,
    spec: EngineSpec,
    settings: NodeSettings,
    *,
    intervals: Intervals = QUICK,
    pick_port: Callable[[], int] | None = None,
    fallbacks: StartupFallbacks | None = None,
) -> AsyncGenerator[tuple[Supervisor, Watched]]:
    """Supervise an engine for the length of the block, writing down its reports."""
    watched = Watched()
    ports: Any = {"pick_port": pick_port} if pick_port else {}
    async with upstream(connect_seconds=30) as ask:
        supervisor = Supervisor(
            engine=engine,
            spec=spec,
            settings=settings,
            upstream=ask,
            changed=watched.changed,
            fallbacks=fallbacks,
            intervals=intervals,
            **ports,
        )
        async with supervisor.running():
            watched.supervisor = supervisor
            yield supervisor, watched
