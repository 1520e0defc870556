from __future__ import annotations

import asyncio
from typing import Any

import pytest

from edgeserve.config.settings import NodeSettings
from edgeserve.errors import EdgeserveError
from edgeserve.http.types import Origin
from edgeserve.orders.sleep import SleepOrder
from edgeserve.reports.sleep import NetworkCard
from edgeserve.runtime.background import background
from node.lifecycle import sleeping as module
from node.lifecycle.sleeping import InUse, MustNotSleep, Sleeper, command, how
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


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NEWS_SECONDS", 0.01)


async def test_it_tells_balancers_before_it_sleeps_and_takes_no_more_requests() -> None:
    async with background() as tasks:
        machine = Machine(tasks)
        await machine.sleeper.order(ORDER)

        report = machine.state.report()
        assert (report.state, report.sleep and report.sleep.asleep) == (
            "draining",
            True,
        )
        assert report.sleep is not None
        assert (report.sleep.by, report.sleep.cards) == ("balancer-1", (CARD,))
        async with asyncio.timeout(PATIENCE):
            await machine.slept.wait()


async def test_a_node_whose_owner_has_not_allowed_it_never_sleeps() -> None:
    async with background() as tasks:
        machine = Machine(tasks, "off")
        with pytest.raises(MustNotSleep, match="not allowed"):
            await machine.sleeper.order(ORDER)

        assert machine.state.report().sleep is None


async def test_what_is_in_use_stays_awake_and_says_by_whom() -> None:
    async with background() as tasks:
        machine = Machine(tasks)
        machine.used = "ada used tty1 5 s ago"
        assert await machine.refused() == "it stays awake: ada used tty1 5 s ago"
        assert machine.state.report().sleep is not None  # the balancer sees it, too

        machine.used = ""
        machine.state.followed_here = 1
        assert "a balancer runs there" in await machine.refused()

        machine.state.followed_here = 0
        with machine.engine.slots.claim():
            assert "it answers a request" in await machine.refused()
        with machine.state.relayed:
            assert "it answers a request" in await machine.refused()
        assert not machine.slept.is_set()


async def test_a_machine_that_has_just_answered_sleeps_only_if_a_person_says_so() -> (
    None
):
    async with background() as tasks:
        machine = Machine(tasks)
        machine.engine.use.asked()
        assert "a moment ago" in await machine.refused()

        await machine.sleeper.order(SleepOrder(now=True))
        assert machine.state.draining


async def test_a_machine_that_does_not_sleep_serves_again_and_says_why() -> None:
    async with background() as tasks:
        machine = Machine(tasks)
        machine.failure = "systemctl failed: inhibited by a film"
        await machine.sleeper.order(ORDER)
        await machine.changed()

        report = machine.state.report()
        assert report.state == "up"
        assert report.sleep is not None
        assert report.sleep.in_use == machine.failure


async def test_a_machine_that_has_slept_serves_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept = iter((0.0, 3600.0, 3600.0))
    monkeypatch.setattr(module, "asleep", lambda: next(slept))
    async with background() as tasks:
        machine = Machine(tasks)
        await machine.sleeper.order(ORDER)
        await machine.changed()

        assert machine.state.report().state == "up"


def test_a_second_of_work_is_a_second_however_many_requests_there_are() -> None:
    now = [0.0]
    use = EngineUse(lambda: now[0])
    use.began()
    now[0] = 1.0
    use.began()
    now[0] = 3.0
    use.ended()
    use.ended()
    now[0] = 10.0

    assert use.worked_seconds == 3.0


@pytest.mark.parametrize(
    ("setting", "kind"),
    [("off", None), ("suspend", "suspend"), ("stop", "stop"), ("rtcwake", "command")],
)
def test_the_setting_names_a_kind_or_is_a_command(
    setting: str, kind: str | None
) -> None:
    assert how(setting) == kind
    if kind == "command":
        assert command(setting) == ("sh", "-c", setting)


def test_in_use_is_a_conflict() -> None:
    assert (InUse("x").status, InUse("x").code) == (409, "machine_in_use")
