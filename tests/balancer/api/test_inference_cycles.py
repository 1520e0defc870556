"""A request leaves no reference cycle, however it ends: its body is gone at once."""

from __future__ import annotations

import asyncio
import gc
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from edgeserve.errors import EdgeserveError, NodeLost
from tests.balancer.endpoint import CHAT, Endpoint, chat, endpoint, eventually
from tests.edgeserve.http.cycles import collected
from tests.edgeserve.http.talk import Client, Got, connected
from tests.fakes.llama import Behaviour
from tests.fakes.node import FakeNode, fake_node
from tests.patience import PATIENCE

WORDS = "x" * 200_000
NAMES = ("a", "b", "c")


@dataclass
class Scene:
    """A balancer and three nodes."""

    balancer: Endpoint
    nodes: list[FakeNode]

    @property
    def port(self) -> int:
        return self.balancer.balancer.origin.port

    async def ask(self, extra: str = "", **fields: Any) -> Got:
        async with connected(self.port) as client:
            client.post(a_body(**fields), CHAT, extra)
            return await client.answer()

    async def empty(self) -> None:
        state = self.balancer.balancer.state
        await eventually(lambda: state.in_flight.inside == 0)

    def behave(self, **behaviour: Any) -> None:
        for node in self.nodes:
            for name, value in behaviour.items():
                setattr(node.llama.behaviour, name, value)

    def refuse(self, error: EdgeserveError | None, nodes: int = 3) -> None:
        for node in self.nodes[:nodes]:
            node.refuse = error

    def freeze(self) -> None:
        for node in self.nodes:
            node.llama.freeze()

    def thaw(self) -> None:
        for node in self.nodes:
            node.llama.thaw()


def a_body(**fields: Any) -> bytes:
    return json.dumps({**chat(WORDS, max_tokens=4), **fields}).encode()


async def streamed(scene: Scene) -> None:
    assert (await scene.ask(stream=True)).status == 200


async def whole(scene: Scene) -> None:
    assert (await scene.ask()).status == 200


async def put_together(scene: Scene) -> None:
    assert (await scene.ask(max_tokens=64)).status == 200


async def with_a_deadline(scene: Scene) -> None:
    assert (await scene.ask("x-edgeserve-deadline-ms: 90000\r\n")).status == 200


async def refused(scene: Scene) -> None:
    assert (await scene.ask(model="huge")).status == 404
    assert (await scene.ask(model=[])).status == 400


async def retried(scene: Scene) -> None:
    scene.refuse(NodeLost("no"), nodes=1)
    assert (await scene.ask(stream=True)).status == 200
    scene.refuse(None)


async def failed(scene: Scene) -> None:
    scene.refuse(NodeLost("no"))
    assert (await scene.ask(stream=True)).status == 502
    scene.refuse(None)


async def reset(scene: Scene) -> None:
    scene.behave(fault="reset")
    assert (await scene.ask(stream=True)).status == 502


async def broken(scene: Scene) -> None:
    scene.behave(fault="break", fault_tokens=2)
    assert b"node_lost" in (await scene.ask(stream=True, max_tokens=20)).body


async def too_late(scene: Scene) -> None:
    scene.freeze()
    assert (await scene.ask("x-edgeserve-deadline-ms: 90\r\n")).status in {429, 504}
    scene.thaw()


async def left_early(scene: Scene) -> None:
    state = scene.balancer.balancer.state
    scene.freeze()
    async with connected(scene.port) as client:
        client.post(a_body(stream=True), CHAT)
        await eventually(lambda: state.in_flight.inside == 1)
    await scene.empty()
    scene.thaw()


async def left_while_waiting(scene: Scene) -> None:
    state = scene.balancer.balancer.state
    scene.freeze()
    async with AsyncExitStack() as stack:
        for number in range(9):
            client = await stack.enter_async_context(connected(scene.port))
            client.post(a_body(stream=number % 2 == 0), CHAT)
        await eventually(lambda: state.queue.waiting == 3)
    await scene.empty()
    scene.thaw()


async def waited_in_vain(scene: Scene) -> None:
    scene.freeze()
    asked = [asyncio.ensure_future(scene.ask()) for _ in range(7)]
    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    scene.thaw()
    assert {each.status for each in await asyncio.gather(*asked)} == {200, 504}


async def left_at_any_moment(scene: Scene) -> None:
    chance = random.Random(1)  # noqa: S311 - the same moments every time

    async def leave(number: int) -> None:
        async with connected(scene.port) as client:
            body = a_body(stream=number % 2 == 0, max_tokens=50)
            client.post(body, CHAT)
            await asyncio.sleep(chance.uniform(0, 0.05))

    for _ in range(5):
        await asyncio.gather(*map(leave, range(4)))
    await scene.empty()


async def left_unread(scene: Scene) -> None:
    async with connected(scene.port) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.post(a_body(stream=True, max_tokens=30_000), CHAT)
        await asyncio.sleep(0.3)
    await scene.empty()


async def left_with_the_end(scene: Scene) -> None:
    for node in scene.nodes:
        node.lingers = 90.0
    async with connected(scene.port) as client:
        client.post(a_body(stream=True), CHAT)
        await client.reader.readuntil(b"[DONE]")
    await scene.empty()


async def malformed(scene: Scene) -> None:
    async with connected(scene.port) as client:
        client.say(f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n")
        client.say("Transfer-Encoding: chunked\r\n\r\n30d40\r\n" + WORDS + "!!\r\n")
        await client.rest()


async def cut(scene: Scene) -> None:
    async with connected(scene.port) as client:
        client.say(
            f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999\r\n\r\n"
        )
        client.say(WORDS)
        await client.writer.drain()
        await asyncio.sleep(0.05)


async def pages(scene: Scene) -> None:
    for path in ("/health", "/nowhere", "/edgeserve/v1/register", "/v1/models/huge"):
        async with connected(scene.port) as client:
            client.post(b"x" * 200_000, path)
            await client.answer()


WAYS = (
    streamed, whole, put_together, with_a_deadline, refused, retried, failed, reset,
    broken, too_late, left_early, left_while_waiting, waited_in_vain,
    left_at_any_moment, left_unread, left_with_the_end, malformed, cut, pages,
)  # fmt: skip
IN_VAIN = (waited_in_vain,)
"""In these a request has to be refused for the time that it waited."""


@pytest.mark.parametrize("way", WAYS)
async def test_nothing_waits_for_the_collector(
    way: Callable[[Scene], Awaitable[None]],
) -> None:
    wait = 0.2 if way in IN_VAIN else PATIENCE
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(fake_node(each, Behaviour(slots=2)))
            for each in NAMES
        ]
        balancer = await stack.enter_async_context(endpoint(*nodes, queue_seconds=wait))
        scene = Scene(balancer, nodes)
        await streamed(scene)  # what is made once, is made now
        with collected() as found:
            await way(scene)
            await asyncio.sleep(0.05)  # for callbacks under way

    assert found == []


def test_what_is_looked_for_would_be_found() -> None:
    with collected() as found:
        client = Client.__new__(Client)
        error = NodeLost("no")
        error.args = (error, b"x" * 100_000, client)
        del error, client

    assert found == ["NodeLost", "a body"]


async def test_what_is_kept_of_a_request_does_not_keep_its_client() -> None:
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(fake_node("a", Behaviour(slots=1)))
        balancer = await stack.enter_async_context(endpoint(node, queue_seconds=1.0))
        scene = Scene(balancer, [node])
        for way in (streamed, whole, put_together, refused, waited_in_vain):
            await way(scene)
        await scene.empty()
        await asyncio.sleep(0.05)  # for callbacks under way
        kept = Counter(type(each).__name__ for each in gc.get_objects())

    assert list(balancer.balancer.state.records)
    assert kept["ServerResponse"] == kept["ClientResponse"] == 0
