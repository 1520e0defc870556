"""Run the node's engines: find llama.cpp, plan what to serve, supervise it.

Whatever is missing leaves the node up, with the reason in its report and in the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from edgeserve.config import NodeSettings
from edgeserve.errors import CommandError
from edgeserve.relay.upstream import Upstream
from node.engines.choose import find_engine
from node.engines.devices import devices_of, fitted
from node.engines.protocol import Engine, EngineSpec
from node.offload import applied
from node.specs import Plan, plan
from node.state import NodeState
from node.supervisor import Supervisor, supervised

log = logging.getLogger(__name__)


@asynccontextmanager
async def hosted(
    state: NodeState, settings: NodeSettings, upstream: Upstream
) -> AsyncGenerator[None]:
    """Run every engine while the block runs, which begins before they are ready.

    Reading model files and trying llama.cpp takes seconds on a slow card, so it happens
    behind the block's back.
    """
    async with asyncio.TaskGroup() as group:
        hosting = group.create_task(_host(state, settings, upstream), name="engines")
        try:
            yield
        finally:
            hosting.cancel()


async def _host(state: NodeState, settings: NodeSettings, upstream: Upstream) -> None:
    engine, planned = await asyncio.to_thread(_prepared, state, settings)
    for problem in planned.problems:
        log.warning("%s", problem)
    state.problems = planned.problems
    async with AsyncExitStack() as stack:
        supervisors: list[Supervisor] = []
        if engine is not None:
            for spec in planned.specs:
                changed = _teller(state, spec.id)
                one = supervised(engine, spec, settings, upstream, changed)
                supervisors.append(await stack.enter_async_context(one))
        state.serve(supervisors)
        await asyncio.Event().wait()  # until the block ends


def _prepared(state: NodeState, settings: NodeSettings) -> tuple[Engine | None, Plan]:
    """Find the engine and plan for it; a node without either is still a node."""
    try:
        engine = find_engine(settings)
        planned = plan(settings, state.hardware.latest, devices_of(engine))
        return engine, offloaded(engine, planned, settings)
    except CommandError as error:
        return None, Plan(specs=(), problems=(str(error),))


def offloaded(engine: Engine, planned: Plan, settings: NodeSettings) -> Plan:
    """Let llama.cpp's own fit tool say how many layers its GPUs hold, if nobody has.

    It knows compute buffers to the byte, which our own estimate cannot.
    """
    said = settings.gpu_layers != "auto" or settings.tensor_split
    if said or settings.experts_on_cpu:
        return planned
    return replace(planned, specs=tuple(_offloaded(engine, s) for s in planned.specs))


def _offloaded(engine: Engine, spec: EngineSpec) -> EngineSpec:
    if not spec.launch.gpu_layers:
        return spec
    offload = fitted(engine, spec)
    return replace(spec, launch=applied(spec.launch, offload)) if offload else spec


def _teller(state: NodeState, id_: str) -> Callable[[], None]:
    return lambda: state.feed.engine_changed(id_)
