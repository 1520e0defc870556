"""A node's state on a machine that only pretends to sleep."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from edgeserve.config.settings import NodeSettings
from edgeserve.errors import EdgeserveError
from edgeserve.http.types import Origin
from edgeserve.orders.sleep import SleepOrder
from edgeserve.reports.sleep import NetworkCard
from node.lifecycle.sleeping import Sleeper
from node.state import NodeState
from node.supervision.use import EngineUse
from tests.node.building import PretendSupervisor, a_node, an_engine
from tests.patience import PATIENCE

CARD = NetworkCard(mac="02:00:00:00:00:01", broadcast="10.0.0.255")
ORDER = SleepOrder(by="balancer-1", why="a test")


class Machine:
    """A node's state on a machine that pretends to sleep; `used` says who uses it."""

    def __init__(self, tasks: Any, setting: str = "suspend") -> None:
        self.state: NodeState = a_node()
        self.engine = PretendSupervisor(an_engine(), Origin("127.0.0.1", 1))
        self.engine.use = EngineUse(lambda: self.now)
        self.state.supervisors = [self.engine]
        self.now = 1000.0
        self.used, self.failure = "", ""
        self.slept = asyncio.Event()
        self.sleeper = Sleeper(
            self.state,
            NodeSettings(sleep=setting),
            tasks,
            look=lambda *_: self.used,
            act=self._sleep,
            reached_by=lambda: (CARD,),
        )
        self._loop = asyncio.get_running_loop()

    def _sleep(self) -> str:
        self._loop.call_soon_threadsafe(self.slept.set)
        return self.failure

    async def refused(self, order: SleepOrder = ORDER) -> str:
        with pytest.raises(EdgeserveError) as refusal:
            await self.sleeper.order(order)
        assert not self.state.draining
        return str(refusal.value)

    async def changed(self) -> None:
        """Wait until it is awake again."""
        async with asyncio.timeout(PATIENCE):
            while self.state.draining:
                await asyncio.sleep(0.01)
