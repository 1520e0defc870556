"""deploy/ray, run for real: it scales by load, and survives what dies in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest

from tests.balancer.endpoint import CHAT, Endpoint, chat, endpoint
from tests.patience import PATIENCE
from tests.servers.programs import (
    MODEL,
    RayServe,
    Running,
    Weights,
    kill,
    needs,
    serving,
)

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600), needs("ray")]

REPLICA = "ray::ServeReplica:llama-cpp:EngineReplica"
HOST = "node.engines.bundled_host"

STORY = "Write a long story about a fox."
LONG: dict[str, Any] = {"temperature": 0, "max_tokens": 400, "stream": True}


@pytest.fixture(scope="module")
def server(weights: Weights) -> Iterator[Running]:
    with serving(RayServe(), weights) as running:
        yield running


@pytest.fixture
async def here(server: Running) -> AsyncGenerator[Endpoint]:
    """A balancer that sends Ray as many requests as all its replicas have slots."""
    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(has_answered, server):
            pass
    async with endpoint(server_tables=(server.setting(width=4),)) as found:
        yield found


def has_answered(server: Running) -> bool:
    """Whether a replica answers: one may be about to start after the last test."""
    fields = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
    return server.ask("POST", CHAT, **fields)[0] == 200


def processes(server: Running, named: str) -> list[psutil.Process]:
    found = list[psutil.Process]()
    for each in server.tree():
        try:
            if named in " ".join(each.cmdline()):
                found.append(each)
        except psutil.Error:
            continue
    return found


@asynccontextmanager
async def streaming(here: Endpoint, words: str = STORY) -> AsyncGenerator[Any]:
    """Yield the content of an answer that has begun."""
    async with here.session.post(CHAT, json=chat(words, MODEL, **LONG)) as answer:
        assert answer.status == 200
        await answer.content.readuntil(b'"content":"')
        yield answer.content


async def test_load_brings_a_second_replica_and_the_list_never_waits(
    server: Running, here: Endpoint
) -> None:
    async def client(number: int) -> int:
        status, asked = 200, 0
        while status == 200 and len(processes(server, REPLICA)) < 2 and asked < 60:
            words = f"Write a story about {number} foxes."
            answer = await here.post(CHAT, chat(words, MODEL, max_tokens=60))
            status, asked = answer.status, asked + 1
        return status

    async with asyncio.timeout(PATIENCE * 2):
        clients = [asyncio.create_task(client(number)) for number in range(4)]
        while len(processes(server, REPLICA)) < 2:
            await asyncio.to_thread(server.model)  # within its own limit
        statuses = await asyncio.gather(*clients)

    (address,) = here.balancer.state.current.fleet.addresses.values()
    assert address.state == "up"
    assert set(statuses) == {200}


@pytest.mark.parametrize("dies", [REPLICA, HOST])
async def test_a_death_ends_answers_that_had_begun_in_a_sentence_and_no_others(
    server: Running, here: Endpoint, dies: str
) -> None:
    engines = processes(server, HOST)
    async with streaming(here) as content:
        for each in processes(server, dies):
            kill(each.pid)
        waiting = asyncio.create_task(here.post(CHAT, chat("Say hello.", MODEL)))
        rest = await content.read()
    answer = await waiting
    left = (await asyncio.to_thread(psutil.wait_procs, engines, PATIENCE))[1]

    assert b"the replica ended in the middle of this answer" in rest
    assert rest.count(b'"error"') == 1
    assert answer.status == 200
    assert answer.text
    assert left == []  # an engine ends with its replica, and the other way round
