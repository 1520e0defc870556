"""Whose turn it is, by what balancers send a node."""

from __future__ import annotations

import aiohttp

from edgeserve.orders.waiting import WAITING, WaitingRequests
from edgeserve.wire import BALANCER_HEADER, encode
from tests.fakes.llama import fake_llama
from tests.node.api.test_inference import CHAT, HELLO, engine_at, serving
from tests.node.building import a_node


async def asked(client: aiohttp.ClientSession, by: str) -> int:
    headers = {BALANCER_HEADER: by}
    async with client.post(CHAT, json=HELLO, headers=headers) as answer:
        await answer.read()
        return answer.status


async def waits(client: aiohttp.ClientSession, by: str, **engines: int) -> int:
    said = encode(WaitingRequests(balancer=by, engines=engines))
    async with client.post(WAITING, data=said) as answer:
        return answer.status


async def test_a_slot_is_kept_for_the_balancer_that_waits_for_that_engine() -> None:
    async with fake_llama() as llama:
        supervisor = engine_at(llama, slots=1)
        async with serving(a_node(supervisor)) as client:
            assert await asked(client, "a") == 200
            assert await waits(client, "b", **{supervisor.spec.id: 1}) == 204

            assert await asked(client, "a") == 429
            assert await asked(client, "b") == 200
            assert await asked(client, "a") == 200


async def test_waiting_for_an_engine_that_is_not_here_keeps_nothing() -> None:
    async with (
        fake_llama() as llama,
        serving(a_node(engine_at(llama, slots=1))) as client,
    ):
        assert await asked(client, "a") == 200
        assert await waits(client, "b", elsewhere=1) == 204

        assert await asked(client, "a") == 200


async def test_what_is_no_such_message_is_refused() -> None:
    async with (
        serving(a_node()) as client,
        client.post(WAITING, data=b'{"balancer":1}') as answer,
    ):
        assert answer.status == 400
