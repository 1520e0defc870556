from __future__ import annotations

import asyncio

import pytest

from edgeserve.orders.groups import WorkerReport
from edgeserve.orders.sleep import SleepOrder
from edgeserve.runtime.background import background
from node.lifecycle import sleeping as module
from node.lifecycle.sleeping import InUse, MustNotSleep, command, how
from node.supervision.use import EngineUse
from tests.node.lifecycle.sleeper import CARD, ORDER, Machine
from tests.patience import PATIENCE

NOW = SleepOrder(now=True)


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

        worker = WorkerReport(head="desk", variant="large:Q4_0", memory=2**30)
        machine.state.workers = (worker,)
        assert "it computes for a group" in await machine.refused(NOW)
        assert not machine.slept.is_set()


async def test_a_worker_of_a_group_stays_awake_and_says_what_ends_that() -> None:
    async with background() as tasks:
        machine = Machine(tasks)
        work = WorkerReport(head="n", variant="large:Q4_0", memory=1)
        machine.state.workers = (work,)
        machine.used = "other programs use 90% of its processor"
        assert await machine.refused() == (
            "it stays awake: it computes for a group of large:Q4_0;"
            " `edgeserve models group large:Q4_0 --dissolve` ends that"
        )
        assert not machine.slept.is_set()


async def test_a_machine_that_has_just_answered_sleeps_only_if_a_person_says_so() -> (
    None
):
    async with background() as tasks:
        machine = Machine(tasks)
        machine.engine.use.asked()
        assert "a moment ago" in await machine.refused()

        await machine.sleeper.order(NOW)
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
