"""How long a request waited for a slot, whatever became of it."""

from __future__ import annotations

import asyncio

from balancer.telemetry.records import RequestRecord
from tests.balancer.endpoint import CHAT, Endpoint, chat, endpoint, eventually
from tests.fakes.node import fake_node
from tests.fakes.reports import an_engine


def waited(here: Endpoint) -> RequestRecord:
    """Return the record of the request that came second, once it has ended."""
    latest, _ = here.balancer.state.records
    assert latest.ended is not None
    return latest


async def test_a_client_that_leaves_the_queue_is_said_to_have_waited() -> None:
    async with (
        fake_node(engine=an_engine(slots=1)) as node,
        endpoint(node) as here,
    ):
        queue = here.balancer.state.queue
        node.llama.freeze()
        first = asyncio.ensure_future(here.post(CHAT, chat()))
        await eventually(lambda: here.balancer.state.in_flight.inside == 1)
        second = asyncio.ensure_future(here.post(CHAT, chat()))
        await eventually(lambda: queue.waiting == 1)
        second.cancel()
        await eventually(lambda: queue.waiting == 0)
        await eventually(lambda: here.balancer.state.in_flight.inside == 1)
        node.llama.thaw()
        await first

        found = waited(here)
        assert found.ended is not None
        assert 0 < found.waited <= found.ended - found.arrived


async def test_a_wait_in_vain_is_counted() -> None:
    async with (
        fake_node(engine=an_engine(slots=1)) as node,
        endpoint(node, queue_seconds=0.1) as here,
    ):
        node.llama.freeze()
        first = asyncio.ensure_future(here.post(CHAT, chat()))
        await eventually(lambda: here.balancer.state.in_flight.inside == 1)
        refused = await here.post(CHAT, chat())
        node.llama.thaw()
        await first

        assert refused.status == 504
        assert waited(here).waited >= 0.1
