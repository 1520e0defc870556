"""The live stream of the dashboard: what is, then what has changed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from balancer.clients.keys import ClientKey, key_id
from balancer.clients.store import add_key, revoke_key, store_in
from balancer.dashboard.rates import Rates, TokensWritten
from edgeserve.security.tokens import new_secret
from tests.balancer.endpoint import CHAT, Endpoint, busy, chat, endpoint
from tests.fakes.llama import Behaviour
from tests.fakes.node import fake_node
from tests.patience import PATIENCE

LIVE = "/edgeserve/v1/live"
KEY = ("pi", "small:Q4_1")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balancer.dashboard.live.EVERY_SECONDS", 0.02)


class Stream:
    """The stream as a page reads it."""

    def __init__(self, events: AsyncGenerator[tuple[str, Any]]) -> None:
        self._events = events

    async def next(self, name: str) -> Any:
        """Return the next event of that name."""
        async with asyncio.timeout(PATIENCE):
            async for found, data in self._events:
                if found == name:
                    return data
        raise AssertionError("the stream has ended")


@asynccontextmanager
async def followed(balancer: Endpoint) -> AsyncGenerator[Stream]:
    async with balancer.session.get(LIVE) as answer:

        async def events() -> AsyncGenerator[tuple[str, Any]]:
            while block := await answer.content.readuntil(b"\n\n"):
                name, data = block.decode().strip().split("\n", 1)
                yield name[7:], json.loads(data[6:])

        found = events()
        try:
            yield Stream(found)
        finally:
            await found.aclose()


async def test_a_page_gets_everything_at_first_and_then_what_changes() -> None:
    async with fake_node() as node, endpoint(node) as balancer:
        await balancer.post(CHAT, chat("before"))
        async with followed(balancer) as stream:
            nodes = await stream.next("nodes")
            models = await stream.next("models")
            before = await stream.next("requests")
            await balancer.post(CHAT, chat("meanwhile"))
            after = await stream.next("requests")
            node.change(node.engine.id, pinned=True)
            changed = await stream.next("nodes")

    assert [each["name"] for each in nodes] == ["pi"]
    assert [each["model"] for each in models] == ["small"]
    assert len(before) == 1
    assert before[0]["id"] not in {each["id"] for each in after}
    assert changed[0]["report"]["engines"][0]["pinned"]


async def test_it_tells_how_many_requests_run_and_wait() -> None:
    async with (
        fake_node(behaviour=Behaviour(slots=2)) as node,
        endpoint(node) as balancer,
        followed(balancer) as stream,
        busy(balancer, 2, node),
    ):
        now = await stream.next("now")
        while now["running"] < 2:
            now = await stream.next("now")
        shown = await stream.next("requests")

    assert (now["running"], now["waiting"]) == (2, 0)
    assert {each["state"] for each in shown} == {"running"}


async def test_the_tokens_of_each_engine_are_told_while_they_come() -> None:
    slow = Behaviour(decode=50.0, length=400)
    async with (
        fake_node(behaviour=slow) as node,
        endpoint(node) as balancer,
        followed(balancer) as stream,
    ):
        asked = asyncio.ensure_future(balancer.post(CHAT, chat(stream=True)))
        now = await stream.next("now")
        while not any(each["tokens_per_second"] for each in now["engines"]):
            now = await stream.next("now")
        asked.cancel()

    assert {(each["node"], each["engine"]) for each in now["engines"]} == {KEY}


def test_tokens_are_counted_once_while_they_come_and_at_the_end() -> None:
    rates = Rates(0.0)
    first = rates.measured(1.0, [TokensWritten("r", 1, KEY, 10)])
    second = rates.measured(3.0, [TokensWritten("r", 1, KEY, 30)])
    end = rates.measured(4.0, [TokensWritten("r", 1, KEY, 32, ended=True)])
    after = rates.measured(5.0, [])

    assert (first, second, end, after) == ({KEY: 10.0}, {KEY: 10.0}, {KEY: 2.0}, {})


def test_an_answer_that_goes_on_elsewhere_counts_for_each_engine() -> None:
    rates, other = Rates(0.0), ("nuc", "small:Q4_1")
    rates.measured(1.0, [TokensWritten("r", 1, KEY, 10)])
    second = rates.measured(2.0, [TokensWritten("r", 2, other, 5)])
    end = rates.measured(3.0, [TokensWritten("r", 2, other, 20, ended=True)])

    assert (second, end) == ({other: 5.0}, {other: 5.0})


async def test_once_another_process_takes_over_pages_go_there() -> None:
    async with (
        fake_node() as node,
        endpoint(node) as balancer,
        asyncio.timeout(PATIENCE),
        balancer.session.get(LIVE) as answer,
    ):
        await answer.content.readuntil(b"event: now")
        balancer.balancer.taken.set()
        await answer.content.read()

    assert answer.content.at_eof()


async def test_a_follower_that_leaves_is_forgotten() -> None:
    async with fake_node() as node, endpoint(node) as balancer:
        before = len(asyncio.all_tasks())
        async with followed(balancer) as stream:
            await stream.next("now")
        async with asyncio.timeout(PATIENCE):
            while len(asyncio.all_tasks()) > before:
                await asyncio.sleep(0.01)


async def test_it_ends_once_its_key_is_revoked(tmp_path: Path) -> None:
    secret, store = new_secret("sk"), store_in(tmp_path)
    add_key(store, ClientKey(id=key_id(secret), name="operator", admin=True))
    headers = {"authorization": f"Bearer {secret}"}
    async with fake_node() as node, endpoint(node, state_dir=tmp_path) as balancer:
        async with balancer.session.get(LIVE, headers=headers) as answer:
            await answer.content.readuntil(b"event: now")
            revoke_key(store, "operator", time.time())
            async with asyncio.timeout(PATIENCE):
                await answer.content.read()
        async with balancer.session.get(LIVE, headers=headers) as again:
            assert again.status == 401
