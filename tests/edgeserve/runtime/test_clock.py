"""Limits are kept, but not by a clock that went on while this process stood still."""

from __future__ import annotations

import asyncio
import time

from edgeserve.runtime.clock import LATE_SECONDS, Ticker
from tests.patience import PATIENCE


class Looks:
    def __init__(self) -> None:
        self.times: list[float] = []
        self.event = asyncio.Event()

    def tick(self, now: float) -> None:
        self.times.append(now)
        self.event.set()


async def test_after_a_standstill_what_came_is_read_before_limits_count() -> None:
    sweep, looks = Ticker(0.05), Looks()
    sweep.add(looks)
    loop = asyncio.get_running_loop()

    time.sleep(LATE_SECONDS + 0.2)
    woke = loop.time()
    async with asyncio.timeout(PATIENCE):
        await looks.event.wait()
    sweep.stop()

    assert looks.times[0] >= woke + 0.04


async def test_a_loop_that_is_always_late_keeps_its_limits_all_the_same() -> None:
    sweep, looks = Ticker(0.01), Looks()
    sweep.add(looks)
    for _ in range(2):
        time.sleep(LATE_SECONDS + 0.1)
        await asyncio.sleep(0.02)
    sweep.stop()

    assert looks.times
