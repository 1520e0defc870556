from __future__ import annotations

import asyncio
import time

from tests.fleet.asking import Client, Got, client
from tests.fleet.conftest import Trio
from tests.fleet.fleet import until

ALL = ("attic", "cellar", "kitchen")
REQUESTS = 9


class Burst:
    """Requests under way at the same time; two for each slot, nearly."""

    def __init__(self, ask: Client) -> None:
        self.got = [Got() for _ in range(REQUESTS)]
        self.tasks = [asyncio.create_task(ask.stream(each)) for each in self.got]

    @property
    def silent(self) -> list[Got]:
        """Those that have not received a byte."""
        return [each for each in self.got if not each.body]

    async def over(self) -> None:
        """Wait for the end of all."""
        async with asyncio.timeout(60):
            await asyncio.gather(*self.tasks)


async def busy_everywhere(ask: Client) -> None:
    """Wait until the balancer knows that every slot of every node is taken."""

    async def all_busy() -> bool:
        nodes = await ask.nodes()
        engines = [each for name in ALL for each in nodes[name]["report"]["engines"]]
        return all(each["busy"] == each["slots"] for each in engines)

    async with asyncio.timeout(10):
        while not await all_busy():
            await asyncio.sleep(0.02)


async def test_a_killed_node_takes_no_request_that_had_no_byte_yet(
    trio: Trio,
) -> None:
    async with client(trio.fleet, trio.balancer) as ask:
        await ask.serving(*ALL)
        burst = Burst(ask)
        await busy_everywhere(ask)
        silent = burst.silent
        trio.nodes["cellar"].kill()
        await burst.over()
        trio.nodes["cellar"].start()
        await ask.serving(*ALL)

    assert len(silent) == REQUESTS
    assert [each.error for each in silent if not each.whole] == []
    assert any(each.attempts > 1 for each in silent)


async def test_a_killed_node_returns_by_itself_and_as_itself(trio: Trio) -> None:
    async with client(trio.fleet, trio.balancer) as ask:
        before = await ask.serving(*ALL)
        trio.nodes["attic"].kill()
        await ask.serving("cellar", "kitchen")
        trio.nodes["attic"].start()
        after = await ask.serving(*ALL)

    assert after["attic"]["id"] == before["attic"]["id"]


async def test_a_node_told_to_stop_finishes_its_streams_and_refuses_nobody(
    trio: Trio,
) -> None:
    async with client(trio.fleet, trio.balancer) as ask:
        await ask.serving(*ALL)
        burst = Burst(ask)
        await busy_everywhere(ask)
        began = time.monotonic()
        trio.nodes["kitchen"].ask_to_stop()
        status = await trio.nodes["kitchen"].ended()
        took = time.monotonic() - began
        await burst.over()
        served = {each.node for each in burst.got}
        trio.nodes["kitchen"].start()
        await ask.serving(*ALL)

    assert status == 0
    assert took < 10
    assert all(each.whole for each in burst.got)
    assert "kitchen" in served


async def test_a_node_whose_cable_is_pulled_is_left_and_found_again(
    trio: Trio,
) -> None:
    host = trio.nodes["attic"].host
    async with client(trio.fleet, trio.balancer) as ask:
        await ask.serving(*ALL)
        burst = Burst(ask)
        await busy_everywhere(ask)
        silent = burst.silent
        host.unplug()
        try:
            await ask.serving("cellar", "kitchen")
            await burst.over()
        finally:
            host.plug_in()
        await ask.serving(*ALL)

    assert len(silent) == REQUESTS
    assert [each.error for each in silent if not each.whole] == []


async def test_no_engine_outlives_its_killed_node(trio: Trio) -> None:
    node = trio.nodes["attic"]
    async with client(trio.fleet, trio.balancer) as ask:
        await ask.serving(*ALL)
        assert len(node.host.processes()) >= 2
        node.kill()
        await until(lambda: not node.host.processes(), "its engine is gone", 10)
        node.start()
        await ask.serving(*ALL)
