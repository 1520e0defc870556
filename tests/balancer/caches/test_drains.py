from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

from balancer.caches.drains import DRAINS, Drains
from edgeserve.runtime.background import background
from tests.balancer.caches.building import SLOW, Moving
from tests.patience import PATIENCE

FIRST, OTHER = ("system a", "question a"), ("system b", "question b")
AGAIN = (*FIRST, "answer", "another question")


@asynccontextmanager
async def draining(moving: Moving) -> AsyncGenerator[Drains]:
    drains = Drains(moving.mover)
    moving.state.current.listen(drains.look)
    async with background() as tasks:
        tasks.start(DRAINS, partial(drains.watch, tasks))
        yield drains


async def given(moving: Moving, orders: int) -> list[tuple[str, str, int]]:
    async with asyncio.timeout(PATIENCE):
        await ordered(moving, orders)
        while moving.mover.moving:
            await asyncio.sleep(0)
    return moving.orders.given


async def ordered(moving: Moving, orders: int) -> list[tuple[str, str, int]]:
    async with asyncio.timeout(PATIENCE):
        while len(moving.orders.given) < orders:
            await asyncio.sleep(0)
    return moving.orders.given


async def test_what_a_node_that_drains_holds_is_fetched_by_the_next_one() -> None:
    moving = Moving({"left": 1, "right": 1})
    first = await moving.answered(*FIRST)
    there = first.to.node
    other = {"left": "right", "right": "left"}[there]
    async with draining(moving):
        moving.becomes(there, state="draining")
        assert await given(moving, 2) == [("save", there, 0), ("fetch", other, -1)]

        send = await moving.answered(*AGAIN)

    assert send.to.node == other
    assert moving.orders.given[2:] == [("restore", other, 0)]


async def test_a_conversation_is_moved_once() -> None:
    moving = Moving({"left": 1, "right": 1})
    there = (await moving.answered(*FIRST)).to.node
    async with draining(moving):
        moving.becomes(there, state="draining")
        await given(moving, 2)
        moving.becomes(there, state="draining", problems=("news",))
        await moving.answered(*OTHER)  # elsewhere

    assert len(moving.orders.given) == 2


async def test_a_move_that_hangs_holds_up_no_other_nodes() -> None:
    moving = Moving({"left": 1, "right": 1, "next": 1})
    first, other = await moving.answered(*FIRST), await moving.answered(*OTHER)
    moving.orders.hangs = first.to.node
    async with draining(moving):
        moving.becomes(first.to.node, state="draining")
        await ordered(moving, 1)
        moving.becomes(other.to.node, state="draining")
        orders = await ordered(moving, 3)

    last = ({"left", "right", "next"} - {first.to.node, other.to.node}).pop()
    assert orders == [
        ("save", first.to.node, 0),
        ("save", other.to.node, 0),
        ("fetch", last, -1),
    ]


async def test_a_request_waits_for_what_is_on_its_way() -> None:
    moving = Moving({"left": 1, "right": 1})
    first = await moving.answered(*FIRST)
    arriving = asyncio.Event()
    block = first.assignment.prompt.blocks[-1]  # type: ignore[attr-defined]  # an AttemptTracker
    moving.becomes(first.to.node, state="draining")
    moving.mover.moving[block] = arriving
    async with moving.claim(*AGAIN) as send:
        task = asyncio.create_task(moving.mover.prepare(send))
        await asyncio.sleep(0)
        assert not task.done()
        del moving.mover.moving[block]
        arriving.set()
        async with asyncio.timeout(PATIENCE):
            await task


async def test_where_no_other_engine_fits_it_stays_on_its_nodes_disk() -> None:
    moving = Moving({"left": 1}, SLOW)
    await moving.answered(*FIRST)
    async with draining(moving):
        moving.becomes("left", state="draining")
        orders = await given(moving, 1)

    assert orders == [("save", "left", 0)], "for when it has started again"


async def test_what_an_engine_holds_that_unloads_stays_on_its_nodes_disk() -> None:
    moving = Moving({"left": 1, "right": 1})
    first = await moving.answered(*FIRST)
    node = moving.state.current.fleet.node(first.to.node)
    assert node is not None
    (engine,) = node.report.engines
    leaving = type(engine)(
        **{name: getattr(engine, name) for name in engine.__struct_fields__}
        | {"state": "leaving"}
    )
    async with draining(moving):
        moving.becomes(first.to.node, engines=(leaving,))
        orders = await given(moving, 1)

    assert orders == [("save", first.to.node, 0)]
