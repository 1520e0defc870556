"""Supervised engines: run a supervisor for the length of a block."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from edgeserve.config.settings import NodeSettings
from edgeserve.http.types import Upstream
from edgeserve.runtime.background import background
from node.engines import process
from node.engines.base import Engine, EngineSpec
from node.engines.process import free_port
from node.supervision.liveness import Pace
from node.supervision.restart import StartupFallbacks
from node.supervision.supervisor import ENGINE, Supervisor


@asynccontextmanager
async def supervised(
    engine: Engine,
    spec: EngineSpec,
    settings: NodeSettings,
    upstream: Upstream,
    changed: Callable[[], None],
    *,
    remedies: StartupFallbacks | None = None,
    pace: Pace | None = None,
    clock: Callable[[], float] = time.monotonic,
    pick_port: Callable[[], int] = free_port,
) -> AsyncGenerator[Supervisor]:
    """Run an engine for the length of the block, which starts before it is ready.

    `changed` is called whenever `report` may have changed. At the end the engine's
    whole process group is gone.
    """
    await asyncio.to_thread(process.sweep, settings.state_dir)
    supervisor = Supervisor(
        engine=engine,
        spec=spec,
        settings=settings,
        upstream=upstream,
        changed=changed,
        remedies=remedies or StartupFallbacks(),
        pace=pace or Pace(),
        clock=clock,
        pick_port=pick_port,
    )
    async with background() as tasks:
        tasks.start(ENGINE, supervisor.supervise, spec.id)
        yield supervisor
