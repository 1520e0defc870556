"""Running: the saved states of a node, while it serves and while it drains."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from edgeserve.config.paths import saved_states
from edgeserve.config.settings import NodeSettings
from edgeserve.errors import in_words
from edgeserve.http.types import Upstream
from edgeserve.runtime.background import background, declared
from edgeserve.runtime.tasks import in_thread
from node.caches.slots import SlotCaches
from node.caches.store import StateStore
from node.pulls.peers import Peers
from node.state import NodeState

log = logging.getLogger(__name__)

TIDY = declared("saved states")

TIDY_SECONDS = 30.0
"""Between two looks at which models have gone."""

GRACE_SECONDS = 1.0
"""How long a node that drains waits for the next order of a balancer."""

LOOK_SECONDS = 0.1

MIB = 2**20


@asynccontextmanager
async def caching(
    state: NodeState, settings: NodeSettings, engines: Upstream, nodes: Upstream
) -> AsyncGenerator[SlotCaches]:
    """Keep states while the block runs. `nodes` sends requests to nodes."""
    folder = saved_states(settings.state_dir)
    store = StateStore(folder, settings.cache_disk_mib * MIB)
    caches = SlotCaches(
        store, lambda: (*state.supervisors, *state.leaving), engines, Peers(nodes)
    )
    try:
        await in_thread(store.open)
    except OSError as error:
        log.warning("cannot keep what slots hold: %s", in_words(error))
    async with background() as tasks:
        tasks.start(TIDY, lambda: _tidy(store))
        yield caches


async def _tidy(store: StateStore) -> None:
    while True:
        await asyncio.sleep(TIDY_SECONDS)
        await in_thread(store.tidy)


async def settled(caches: SlotCaches, state: NodeState) -> None:
    """Wait until balancers have taken what slots hold, after the last request."""
    engines = [each for each in state.supervisors if not each.use.never_asked]
    if not any(each.report.saves for each in engines):
        return
    caches.used_at = max(caches.used_at, state.left_at)
    while True:
        if caches.quiet_seconds >= GRACE_SECONDS or not state.feed.followed:
            return
        await asyncio.sleep(LOOK_SECONDS)
