"""Clients that leave at any moment leave nothing behind."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.balancer.endpoint import CHAT, Answered, Endpoint, chat, endpoint, eventually
from tests.fakes.llama import Behaviour
from tests.fakes.node import FakeNode, fake_node
from tests.patience import PATIENCE

TOGETHER = 20
LONGEST_STAY = 0.03


def request(*, stream: bool) -> bytes:
    body = json.dumps(chat(stream=stream)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def abort_one(balancer: Endpoint, chance: random.Random) -> None:
    """Ask, stay for a moment, leave without a word."""
    origin = balancer.balancer.origin
    _, writer = await asyncio.open_connection(origin.host, origin.port)
    whole = request(stream=chance.random() < 0.5)
    cut = chance.choice((len(whole), len(whole), len(whole), len(whole) // 2))
    writer.write(whole[:cut])
    await asyncio.sleep(chance.uniform(0, LONGEST_STAY))
    writer.transport.abort()


async def abort_many(balancer: Endpoint, count: int) -> None:
    chance = random.Random(1)  # noqa: S311 - the same moments every time
    for _ in range(count // TOGETHER):
        await asyncio.gather(*(abort_one(balancer, chance) for _ in range(TOGETHER)))


async def leave_at(balancer: Endpoint, mark: bytes) -> Any:
    """Ask for a stream, leave once `mark` has come; returns the record."""
    origin = balancer.balancer.origin
    reader, writer = await asyncio.open_connection(origin.host, origin.port)
    writer.write(request(stream=True))
    head = await reader.readuntil(b"\r\n\r\n")
    id_ = next(
        line.split(b": ")[1].decode()
        for line in head.split(b"\r\n")
        if line.startswith(b"x-edgeserve-request-id")
    )
    await reader.readuntil(mark)
    writer.transport.abort()
    await eventually(lambda: balancer.balancer.state.in_flight.inside == 0)
    return (await balancer.get(f"/edgeserve/v1/requests/{id_}")).json


async def test_a_client_that_has_got_the_whole_answer_has_not_left() -> None:
    async with fake_node("a") as node, endpoint(node) as balancer:
        node.lingers = PATIENCE
        record = await leave_at(balancer, b"data: [DONE]\n\n")
        key = balancer.balancer.state.current.candidates[0].key
        learned = balancer.balancer.state.predictive.fleet_model.get(key)

    assert record["outcome"] == "answered"
    assert record["attempts"][0]["outcome"] == "answered"
    assert learned is not None
    assert learned.learner.samples == 1


async def test_a_client_that_lacks_only_the_end_of_its_answer_has_left() -> None:
    async with (
        fake_node("a", Behaviour(decode=20, length=40)) as node,
        endpoint(node) as balancer,
    ):
        record = await leave_at(balancer, b"w2")

    assert record["outcome"] == "the client left"
    assert record["attempts"][0]["outcome"] == "cancelled"


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def at_rest(balancer: Endpoint, *nodes: FakeNode) -> tuple[int, int]:
    """Wait until no request is left; return how many files and tasks are left."""
    state = balancer.balancer.state
    await eventually(lambda: state.in_flight.inside == 0)
    await eventually(lambda: all(node.engine.busy == 0 for node in nodes))
    await eventually(lambda: all(node.llama.busy == 0 for node in nodes))
    return descriptors(), len(asyncio.all_tasks())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc here")
@pytest.mark.parametrize(
    "count", [1000, pytest.param(10_000, marks=[pytest.mark.bench])]
)
async def test_requests_that_are_aborted_leave_nothing_behind(count: int) -> None:
    slow = Behaviour(decode=400, prefill=2000)
    async with (
        fake_node("a", slow) as a,
        fake_node("b", slow) as b,
        endpoint(a, b) as balancer,
    ):
        state = balancer.balancer.state
        await abort_many(balancer, TOGETHER)
        files, tasks = await at_rest(balancer, a, b)

        await abort_many(balancer, count)
        await at_rest(balancer, a, b)

        keys = [each.key for each in state.current.candidates]
        await eventually(lambda: all(state.slot_counts.busy(key) == 0 for key in keys))
        assert [state.slot_counts.of(key).ours for key in keys] == [0, 0]
        await eventually(lambda: descriptors() <= files + 4)
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks + 2)
        assert state.queue.waiting == 0
        answer = await balancer.post(CHAT, chat(max_tokens=2))

    assert answer.status == 200


async def stay_and_leave(balancer: Endpoint, node: FakeNode) -> None:
    """Ask for a long stream, leave when it is being written."""
    begun = node.llama.busy
    asking = asyncio.create_task(balancer.post(CHAT, chat(stream=True)))
    await eventually(lambda: node.llama.busy > begun)
    asking.cancel()
    await asyncio.wait([asking])


async def attempts(balancer: Endpoint, answer: Answered) -> int:
    id_ = answer.headers["x-edgeserve-request-id"]
    about = (await balancer.get(f"/edgeserve/v1/requests/{id_}")).json
    return len(about["attempts"])


@pytest.mark.parametrize("policy", ["predict", "least-busy"])
async def test_a_slot_stays_taken_until_the_engine_has_stopped_the_request(
    policy: str,
) -> None:
    deaf = Behaviour(slots=1, decode=20, length=2000, notice=1.0)
    async with fake_node("a", deaf) as node, endpoint(node, policy=policy) as balancer:
        await stay_and_leave(balancer, node)
        answer = await balancer.post(CHAT, chat(max_tokens=2))

        assert answer.status == 200
        assert await attempts(balancer, answer) == 1, "it was not sent there in vain"


async def test_the_next_request_gets_another_slot_than_the_one_that_was_left() -> None:
    deaf = Behaviour(slots=2, decode=20, length=2000, notice=1.0)
    async with fake_node("a", deaf) as node, endpoint(node) as balancer:
        await stay_and_leave(balancer, node)
        answer = await balancer.post(CHAT, chat(max_tokens=2))
        slots = {each.body["id_slot"] for each in node.llama.requests}

    assert answer.status == 200
    assert slots == {0, 1}


async def test_a_client_that_leaves_ends_its_engines_connection_at_once() -> None:
    slow = Behaviour(decode=20, length=2000)
    async with fake_node("a", slow) as node, endpoint(node) as balancer:
        asking = asyncio.create_task(balancer.post(CHAT, chat(stream=True)))
        await eventually(lambda: node.llama.busy == 1)
        left = asyncio.get_running_loop().time()
        asking.cancel()
        await eventually(lambda: node.llama.counters.cancelled == 1)
        took = asyncio.get_running_loop().time() - left

    assert took < 1.0, "50 ms on an idle machine"
