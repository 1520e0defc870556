"""What nodes hear of the requests that wait, where other balancers use them, too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from balancer.discovery.node_client import NodeClient
from edgeserve.http.types import Answer, Origin
from edgeserve.orders.waiting import WAITING
from edgeserve.wire import EngineReport
from tests.balancer.endpoint import CHAT, Answered, Endpoint, chat, endpoint, eventually
from tests.fakes.node import fake_node
from tests.fakes.reports import an_engine


def waiting(balancer: Endpoint) -> int:
    return balancer.balancer.state.queue.waiting


@asynccontextmanager
async def one_waits(balancer: Endpoint) -> AsyncGenerator[asyncio.Task[Answered]]:
    """Have a request wait for the length of the block."""
    asked = asyncio.create_task(balancer.post(CHAT, chat()))
    try:
        await eventually(lambda: waiting(balancer) == 1)
        yield asked
    finally:
        asked.cancel()


def used_by_another() -> EngineReport:
    return an_engine("Small:Q4_1", slots=1, busy=1)


async def test_a_node_that_another_balancer_uses_hears_what_waits_and_its_end() -> None:
    async with (
        fake_node(engine=used_by_another()) as node,
        endpoint(node) as balancer,
    ):
        heard = node.waits
        assert heard is not None
        async with one_waits(balancer) as asked:
            await eventually(lambda: bool(heard))
            assert heard[-1].engines == {"Small:Q4_1": 1}
            node.say(busy=0)
            assert (await asked).status == 200
        await eventually(lambda: heard[-1].engines == {})

    assert len({each.balancer for each in heard}) == 1


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the paths of all orders that are sent, as they are."""
    sent, send = list[str](), NodeClient.order

    def order(
        client: NodeClient, origin: Origin, path: str, body: bytes
    ) -> AbstractAsyncContextManager[Answer]:
        sent.append(path)
        return send(client, origin, path, body)

    monkeypatch.setattr(NodeClient, "order", order)
    return sent


async def test_a_node_of_the_previous_release_is_told_in_vain(
    orders: list[str],
) -> None:
    async with (
        fake_node(engine=used_by_another()) as node,
        endpoint(node) as balancer,
    ):
        node.waits = None
        async with one_waits(balancer) as asked:
            await eventually(lambda: orders.count(WAITING) > 1)
            node.say(busy=0)
            assert (await asked).status == 200


async def test_a_node_that_no_other_uses_is_told_nothing(orders: list[str]) -> None:
    async with (
        fake_node(engine=an_engine(slots=1)) as node,
        endpoint(node) as balancer,
    ):
        node.llama.freeze()
        first = asyncio.create_task(balancer.post(CHAT, chat()))
        await eventually(lambda: len(node.told) == 1)
        async with one_waits(balancer) as asked:
            node.llama.thaw()
            assert {(await first).status, (await asked).status} == {200}

    assert WAITING not in orders
