"""Keep one engine running: start, ready, watch progress, restart, quarantine, stop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, asynccontextmanager

from edgeserve.config import NodeSettings
from edgeserve.relay.upstream import Origin, Upstream
from edgeserve.wire import EngineReport
from node.engines.protocol import Engine, EngineSpec
from node.slots import Slots


class Supervisor:
    """One engine, however often its process is replaced."""

    spec: EngineSpec
    slots: Slots
    api_key: str

    @property
    def report(self) -> EngineReport:
        """What the node says of the engine now."""
        raise NotImplementedError

    @property
    def origin(self) -> Origin:
        """Where the engine listens now; a restart may move it."""
        raise NotImplementedError

    def claim(self) -> AbstractContextManager[None]:
        """Hold one slot for the length of a block.

        Raises NoNode, with the reason, where the engine is not ready; FleetBusy, with
        Retry-After, where every slot is taken.
        """
        raise NotImplementedError

    async def drained(self) -> None:
        """Wait until no slot is claimed."""
        raise NotImplementedError


@asynccontextmanager
async def supervised(
    engine: Engine,
    spec: EngineSpec,
    settings: NodeSettings,
    upstream: Upstream,
    changed: Callable[[], None],
) -> AsyncGenerator[Supervisor]:
    """Run an engine for the length of the block, which starts before it is ready.

    `changed` is called whenever `report` has changed. At the end the engine's whole
    process group is gone.
    """
    raise NotImplementedError
    yield Supervisor()
