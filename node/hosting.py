"""Run the node's engines: find llama.cpp, plan what to serve, supervise it.

Whatever is missing leaves the node up, with the reason in its report and in the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from edgeserve.background import background, declared
from edgeserve.config import NodeSettings
from edgeserve.relay.upstream import Upstream
from node.prepare import Prepared, prepared, standby
from node.remedies import Remedies
from node.specs import Placed
from node.state import NodeState
from node.supervisor import Supervisor, supervised

log = logging.getLogger(__name__)

ENGINES = declared("engines")


@asynccontextmanager
async def hosted(
    state: NodeState, settings: NodeSettings, upstream: Upstream
) -> AsyncGenerator[None]:
    """Run every engine while the block runs, which begins before they are ready.

    Reading model files and trying llama.cpp takes seconds on a slow card, so it happens
    behind the block's back.
    """
    async with background() as tasks:
        tasks.start(ENGINES, lambda: _host(state, settings, upstream))
        yield


async def _host(state: NodeState, settings: NodeSettings, upstream: Upstream) -> None:
    found = await asyncio.to_thread(prepared, settings, state.hardware.latest)
    for problem in found.plan.problems:
        log.warning("%s", problem)
    state.problems = found.plan.problems
    for each in found.plan.engines:
        if each.tuning and (each.fitted.tuned or each.tuning.failed):
            log.info("%s: %s", each.spec.id, each.tuning.summary)
        if other := found.others.get(each.spec.id):
            log.warning("%s: %s", each.spec.id, other.why)
    async with AsyncExitStack() as stack:
        supervisors: list[Supervisor] = []
        for each in found.plan.engines:
            remedies = _remedies(found, each, settings, state)
            engine, changed = found.engine_of(each), _teller(state, each.spec.id)
            one = supervised(
                engine, each.spec, settings, upstream, changed, remedies=remedies
            )
            supervisors.append(await stack.enter_async_context(one))
        state.serve(supervisors)
        await asyncio.Event().wait()  # until the block ends


def _remedies(
    found: Prepared, placed: Placed, settings: NodeSettings, state: NodeState
) -> Remedies:
    other = found.others.get(placed.spec.id)
    ways = standby(found, placed, settings, state.hardware.latest)
    return Remedies(ways, other.why if other else None)


def _teller(state: NodeState, id_: str) -> Callable[[], None]:
    return lambda: state.feed.engine_changed(id_)
