from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from balancer.discovery.hints import Discovered
from balancer.energy import waker
from balancer.energy.kept import FILE
from balancer.energy.sleepers import SLEEPERS
from balancer.energy.wake import GIVE_UP, GRACE
from balancer.energy.waking import run_command
from balancer.fleet.catalog import catalog
from edgeserve.errors import EdgeserveError
from edgeserve.orders.sleep import SLEEP
from edgeserve.runtime.background import failures
from tests.balancer.building import Holder, a_request
from tests.balancer.energy.household import CARD, household
from tests.patience import PATIENCE


async def test_a_machine_that_sleeps_is_no_failure_and_its_models_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with household(tmp_path, monkeypatch) as house:
        house.has("pi", asleep=True)

        assert (house.node("pi").state, house.node("pi").problem) == ("asleep", None)
        assert [each.name for each in catalog(house.state.current.candidates)] == [
            "small"
        ]
        fleet = house.fleet.withdrawn("pi", house.now)
        assert not fleet.forgettable("pi", house.now + 10**6, 60.0)


async def test_a_request_wakes_it_waits_and_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with household(tmp_path, monkeypatch) as house:
        house.has("pi", asleep=True)
        house.sleepers.waker.ours.add("pi")
        request = Holder(house.state.queue, a_request())
        await house.passes(14)

        assert "waking pi: 1 request waits for small, which nothing" in house.said[-1]
        assert house.packets == [CARD] * 3, "a packet may be lost"
        house.has("pi", asleep=False)
        await house.passes(1)
        assert await request.done() == "pi"
        assert "pi is up, 14 s after it was woken" in house.said
        assert house.sleepers.waker.boots == {"pi": 14.0}


async def test_the_balancer_that_sent_it_to_sleep_wakes_it_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with household(tmp_path, monkeypatch) as house:
        house.has("pi", asleep=True)
        request = Holder(house.state.queue, a_request())
        await house.passes(GRACE)
        assert not house.packets, "another one may wake it"
        await house.passes(1)
        assert house.packets
        request.task.cancel()


async def test_a_request_is_told_that_the_machine_does_not_come_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with household(tmp_path, monkeypatch) as house:
        house.has("pi", asleep=True)
        request = Holder(house.state.queue, a_request())
        await house.passes(100)
        with pytest.raises(EdgeserveError, match="did not come up within 90 s"):
            await request.task

        sent = len(house.packets)
        await house.passes(50)
        again = Holder(house.state.queue, a_request())
        with pytest.raises(EdgeserveError, match="did not come up"):
            await again.task  # at once: it is left alone for a minute
        assert len(house.packets) == sent

        await house.passes(15)
        later = Holder(house.state.queue, a_request())
        await house.passes(5)
        assert len(house.packets) > sent
        later.task.cancel()


async def test_the_reason_names_the_wake_command_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failed(*_: object) -> str:
        return "wake_command ended with status 7"

    monkeypatch.setattr(waker, "run_command", failed)
    async with household(tmp_path, monkeypatch, wake_command="exit 7") as house:
        house.has("pi", asleep=True)
        request = Holder(house.state.queue, a_request())
        await house.passes(100)
        with pytest.raises(EdgeserveError, match="woken; wake_command ended with stat"):
            await request.task
        await house.passes(70)

    assert house.node("pi").problem is None, "it may be tried again"
    assert "pi: None" not in house.said


async def test_after_many_vain_tries_it_counts_as_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with household(tmp_path, monkeypatch) as house:
        house.has("pi", asleep=True)
        for _ in range(GIVE_UP):
            house.sleepers.waker.order(house.node("pi"))
            house.now += 600.0
            house.sleepers.look(house.now)

        assert house.node("pi").state == "unreachable"


async def test_an_idle_machine_is_told_to_sleep_and_asked_no_more_if_it_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with household(tmp_path, monkeypatch, sleep_after=5.0) as house:
        house.has("pi", asleep=False)
        await house.passes(4)
        assert house.orders == []
        await house.passes(60)

        assert house.orders == [SLEEP]
        assert "pi does not sleep: http://10.0.0.9:8090 is pretended" in house.said


async def test_the_balancers_own_machine_is_never_told_to_sleep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("balancer.energy.sleepers.is_own", lambda _: True)
    async with household(tmp_path, monkeypatch, sleep_after=1.0) as house:
        house.has("pi", asleep=False)
        await house.passes(20)
        assert house.orders == []
        with pytest.raises(EdgeserveError, match="own machine"):
            await house.sleepers.order_sleep(house.node("pi"), "a test")


async def test_what_sleeps_is_known_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = asyncio.Event()
    async with household(tmp_path, monkeypatch) as house:
        house.has("pi", asleep=True)
        house.tasks.start(SLEEPERS, lambda: house.sleepers.run(taken))
        async with asyncio.timeout(PATIENCE):
            while not (tmp_path / FILE).exists():
                await asyncio.sleep(0.01)
    async with household(tmp_path, monkeypatch) as house:

        def discovered(event: object) -> None:
            assert isinstance(event, Discovered)
            current = house.state.current
            current.become(
                current.fleet.discovered(
                    event.key, event.source, event.origins, event.id
                )
            )

        house.sleepers.restore(discovered)
        assert house.node("pi").state == "asleep"


async def test_a_damaged_file_costs_what_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).write_text("{")
    with caplog.at_level(logging.WARNING):
        async with household(tmp_path, monkeypatch) as house:
            assert house.fleet.nodes == ()

    assert "known again once they are awake" in caplog.text


async def test_the_owners_command_gets_names_as_variables_only(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = f'echo "$EDGESERVE_NODE $EDGESERVE_MAC" >{out}'

    assert await run_command(command, "pi; rm -rf /", [CARD]) == ""
    assert out.read_text() == f"pi; rm -rf / {CARD.mac}\n"
    assert "ended with status 3" in await run_command("exit 3", "pi", [])


async def test_once_another_process_has_taken_over_its_end_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = asyncio.Event()
    async with household(tmp_path, monkeypatch) as home:
        before = dict(failures.counts)
        started = home.tasks.start(SLEEPERS, lambda: home.sleepers.run(taken))
        taken.set()
        async with asyncio.timeout(PATIENCE):
            await started.task

    assert dict(failures.counts) == before
