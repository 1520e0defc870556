"""After a standstill of this process, silence during it makes no node suspect."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from dataclasses import replace

import pytest

from edgeserve.runtime.clock import ActiveClock, unless_silent
from tests.balancer.endpoint import CHAT, QUICK, chat, endpoint, eventually
from tests.fakes.llama import Behaviour
from tests.fakes.node import fake_node
from tests.patience import PATIENCE

STANDSTILL_SECONDS = 2.0


def stand_still() -> None:
    """Hear nothing, as a process that is stopped: here it is the whole loop."""
    time.sleep(STANDSTILL_SECONDS)


@asynccontextmanager
async def awake() -> AsyncGenerator[ActiveClock]:
    with closing(ActiveClock()) as clock:
        yield clock


async def test_time_passes_while_the_process_runs() -> None:
    async with awake() as clock:
        began = clock.time()
        await eventually(lambda: clock.time() >= began + 0.6)


async def test_a_standstill_does_not_count() -> None:
    async with awake() as clock:
        began = clock.time()
        stand_still()

        assert clock.time() < began + 0.5


async def test_a_machine_that_has_slept_is_noticed() -> None:
    slept = 0.0
    with closing(ActiveClock(lambda: slept)) as clock:
        assert not clock.woke(PATIENCE)
        slept = 600.0
        await eventually(lambda: clock.woke(PATIENCE))


async def test_silence_is_an_error() -> None:
    async with awake() as clock:
        with pytest.raises(TimeoutError):
            async with unless_silent(clock, 0.05):
                await asyncio.sleep(PATIENCE)


async def test_a_node_that_sends_events_is_not_silent() -> None:
    async with awake() as clock, unless_silent(clock, 20.0) as silence:
        for _ in range(3):
            await asyncio.sleep(0.05)
            silence.heard()


async def test_a_standstill_of_ours_makes_no_node_suspect() -> None:
    async with (
        fake_node() as node,
        endpoint(node, pace=replace(QUICK, suspect=0.6)) as balancer,
    ):
        seen = list[str]()
        current = balancer.balancer.state.current
        current.listen(lambda: seen.append(current.fleet.nodes[0].state))

        stand_still()
        answer = await balancer.post(CHAT, chat())

    assert answer.status == 200
    assert set(seen) <= {"up"}


async def test_a_standstill_of_ours_gives_no_engine_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("balancer.failover.stall.UNLEARNED_SECONDS", 1.5)
    async with (
        fake_node("a-slow", Behaviour(decode=2)) as slow,
        fake_node("b-idle") as idle,
        endpoint(slow, idle) as balancer,
    ):
        asking = asyncio.create_task(
            balancer.post(CHAT, chat(stream=True, max_tokens=4))
        )
        await eventually(lambda: slow.llama.counters.predicted_tokens > 1)
        await asyncio.sleep(0.3)  # between two words
        stand_still()
        answer = await asking

    assert answer.status == 200
    assert idle.told == []
