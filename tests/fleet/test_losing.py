from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.fleet.asking import Client, Got, client
from tests.fleet.conftest import Trio
from tests.fleet.fleet import SECONDS, until

ALL = ("attic", "cellar", "kitchen")
REQUESTS = 9


class Burst:
    """Requests under way at the same time; two for each slot, nearly.

    No answer begins before `release`, so that what a test does meanwhile is done to
    requests that run, or wait, however slow this machine is.
    """

    def __init__(self, ask: Client, hold: Path) -> None:
        self._ask = ask
        self.release = hold.unlink
        hold.touch()
        self.attempts: list[list[dict[str, Any]]] = []
        self.got = [Got() for _ in range(REQUESTS)]
        self._tasks = [asyncio.create_task(ask.stream(each)) for each in self.got]

    async def over(self) -> None:
        """Wait for the end of all."""
        async with asyncio.timeout(SECONDS):
            await asyncio.gather(*self._tasks)
        records = await self._ask.requests()
        self.attempts = [each["attempts"] for each in records[:REQUESTS]]

    @property
    def unanswered(self) -> list[Got]:
        """Those that did not come to their proper end."""
        return [each for each in self.got if not each.whole]


@asynccontextmanager
async def burst(ask: Client, hold: Path) -> AsyncGenerator[tuple[Burst, str]]:
    """Yield a burst, and a node whose slots it has taken: which one is not our choice.

    The burst is released and over with the block.
    """
    await ask.serving(*ALL)
    made = Burst(ask, hold)
    try:
        yield made, await ask.full()
        assert all(each.silent for each in made.got)
    finally:
        made.release()
    await made.over()


async def test_a_killed_node_takes_no_request_that_had_no_byte_yet(
    trio: Trio, hold: Path
) -> None:
    async with client(trio.fleet, trio.balancer) as ask:
        async with burst(ask, hold) as (asked, victim):
            trio.nodes[victim].kill()
        trio.nodes[victim].start()
        await ask.serving(*ALL)

    assert asked.unanswered == []
    assert any(len(each) > 1 for each in asked.attempts)


async def test_a_killed_node_returns_by_itself_and_as_itself(trio: Trio) -> None:
    async with client(trio.fleet, trio.balancer) as ask:
        before = await ask.serving(*ALL)
        trio.nodes["attic"].kill()
        await ask.serving("cellar", "kitchen")
        trio.nodes["attic"].start()
        after = await ask.serving(*ALL)

    assert after["attic"]["id"] == before["attic"]["id"]


async def test_a_node_that_stops_finishes_its_streams_and_no_request_fails(
    trio: Trio, hold: Path
) -> None:
    async with client(trio.fleet, trio.balancer) as ask:
        async with burst(ask, hold) as (asked, victim):
            trio.nodes[victim].ask_to_stop()
            await ask.draining(victim)
        status = await trio.nodes[victim].ended()
        trio.nodes[victim].start()
        await ask.serving(*ALL)

    assert status == 0
    assert asked.unanswered == []
    assert victim in {each[-1]["node"] for each in asked.attempts}


async def test_a_node_whose_cable_is_pulled_is_left_and_found_again(
    trio: Trio, hold: Path
) -> None:
    async with client(trio.fleet, trio.balancer) as ask:
        try:
            async with burst(ask, hold) as (asked, victim):
                trio.nodes[victim].host.unplug()
            await ask.serving(*(name for name in ALL if name != victim))
        finally:
            for node in trio.nodes.values():
                node.host.plug_in()
        await ask.serving(*ALL)

    assert asked.unanswered == []
    assert any(len(each) > 1 for each in asked.attempts)


async def test_no_engine_outlives_its_killed_node(trio: Trio) -> None:
    node = trio.nodes["attic"]
    async with client(trio.fleet, trio.balancer) as ask:
        await ask.serving(*ALL)
        assert len(node.host.processes()) >= 2
        node.kill()
        await until(lambda: not node.host.processes(), "its engine is gone")
        node.start()
        await ask.serving(*ALL)
