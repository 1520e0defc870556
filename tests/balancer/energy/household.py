"""Machines that may sleep, as a balancer sees them: no sockets, a clock that is set."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import structs

from balancer.energy import waker
from balancer.energy.sleepers import Sleepers
from balancer.fleet.members import Fleet, Node
from balancer.state import build_state
from edgeserve.config.settings import BalancerSettings
from edgeserve.errors import NodeLost
from edgeserve.http.types import Origin
from edgeserve.reports.sleep import NetworkCard, Sleep
from edgeserve.runtime.background import background
from tests.fakes.reports import a_report, an_engine

CARD = NetworkCard(mac="02:00:00:00:00:01", broadcast="10.0.0.255")


class NoNodes:
    """A client whose orders reach nothing; it counts them."""

    id = "this-balancer"

    def __init__(self, orders: list[str]) -> None:
        self.orders = orders

    def order(self, origin: Origin, path: str, _: bytes) -> Any:
        self.orders.append(path)
        raise NodeLost(f"{origin.url} is pretended")


class Household:
    """A balancer's parts, and machines that it lets sleep and wakes."""

    def __init__(self, tasks: Any, folder: Path, **settings: Any) -> None:
        self.said, self.now = list[str](), 1000.0
        self.settings = BalancerSettings(state_dir=folder, **settings)
        self.state = build_state(self.settings, self.said.append)
        self.orders = list[str]()
        nodes: Any = NoNodes(self.orders)
        self.sleepers = Sleepers(
            self.state, nodes, self.settings, tasks, lambda: self.now
        )
        self.packets = list[NetworkCard]()
        self.tasks = tasks

    def sent(self, cards: Iterable[NetworkCard]) -> str:
        """Take the place of the network."""
        self.packets += cards
        return ""

    def has(self, name: str, *, asleep: bool, model: str = "small:Q4_1") -> None:
        """Have a node report that its machine sleeps, or is awake."""
        sleep = Sleep(how="suspend", asleep=asleep, cards=(CARD,))
        report = a_report(an_engine(model), name=name, id=name)
        report = structs.replace(report, sleep=sleep)
        origin, current = Origin("10.0.0.9", 8090), self.state.current
        fleet = current.fleet.discovered(name, "mdns", (origin,), None)
        fleet = fleet.reported(name, origin, report)
        if asleep:
            fleet = fleet.suspected(name, "silent", self.now)
            fleet = fleet.missed(name, "no route to host", self.now)
        current.become(fleet)

    def node(self, name: str) -> Node:
        """Return a node."""
        found = self.state.current.fleet.node(name)
        assert found is not None
        return found

    @property
    def fleet(self) -> Fleet:
        """The fleet now."""
        return self.state.current.fleet

    async def passes(self, seconds: float) -> None:
        """Let time pass, with a look each second, and let what was begun go on."""
        for _ in range(round(seconds)):
            for _ in range(3):
                await asyncio.sleep(0)
            self.now += 1.0
            self.sleepers.look(self.now)
        for _ in range(3):
            await asyncio.sleep(0)


@asynccontextmanager
async def household(
    folder: Path, monkeypatch: Any, **settings: Any
) -> AsyncGenerator[Household]:
    """Run one for the length of the block."""
    async with background() as tasks:
        made = Household(tasks, folder, **settings)
        monkeypatch.setattr(waker, "send_packets", made.sent)
        yield made
