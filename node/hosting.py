"""Run the node's engines: find llama.cpp, plan what to serve, supervise it.

Whatever is missing leaves the node up, with the reason in its report and in the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from edgeserve.config import NodeSettings
from edgeserve.relay.upstream import Upstream
from node.prepare import prepared
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
    found = await asyncio.to_thread(prepared, settings, state.hardware.latest)
    for problem in found.plan.problems:
        log.warning("%s", problem)
    state.problems = found.plan.problems
    for each in found.plan.engines:
        if each.tuning and each.fitted.tuned:
            log.info("%s: %s", each.spec.id, each.tuning.summary)
    async with AsyncExitStack() as stack:
        supervisors: list[Supervisor] = []
        if found.engine is not None:
            for spec in found.plan.specs:
                changed = _teller(state, spec.id)
                one = supervised(found.engine, spec, settings, upstream, changed)
                supervisors.append(await stack.enter_async_context(one))
        state.serve(supervisors)
        await asyncio.Event().wait()  # until the block ends


def _teller(state: NodeState, id_: str) -> Callable[[], None]:
    return lambda: state.feed.engine_changed(id_)
