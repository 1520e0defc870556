"""One of two balancers behind a proxy is killed, or stopped, under load."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from node.engines.process import free_port
from tests.balancer.endpoint import CHAT, chat, eventually
from tests.deploy.proxies.dying import Process, asking, balancers, knowing
from tests.deploy.proxies.programs import PROGRAMS, program, proxy
from tests.fakes.llama import Behaviour
from tests.fakes.node import fake_node
from tests.fakes.reports import an_engine

CLIENTS = 16
LONG = "PROXIES" in os.environ


@pytest.mark.skipif(not LONG, reason="slow: make check-proxies")
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("ends", [Process.kill, Process.stop])
async def test_clients_that_ask_again_lose_nothing(
    name: str, ends: Callable[[Process], None], tmp_path: Path
) -> None:
    program(name)
    slow = Behaviour(decode=40, length=20, slots=4)
    async with (
        fake_node("attic", slow, engine=an_engine(slots=4)) as attic,
        fake_node("cellar", slow, engine=an_engine(slots=4)) as cellar,
    ):
        with balancers(tmp_path, (attic, cellar)) as (first, second):
            await knowing(first, 2)
            await knowing(second, 2)
            addresses = (first.address, second.address)
            with proxy(name, tmp_path, addresses) as here:
                async with asking(here.url, here.trust, CLIENTS) as (clients, answered):
                    await eventually(lambda: answered(3 * CLIENTS))
                    before = clients.count.answered
                    ends(first)
                    await eventually(lambda: answered(before + 6 * CLIENTS))

    count = clients.count
    print(f"{name}, {ends.__name__}: {count}")
    assert count.lost == []
    assert len(count.words) == 1, "an answer is not whole"
    assert count.again <= (CLIENTS if ends is Process.kill else 0)


@pytest.mark.skipif(not LONG, reason="slow: make check-proxies")
@pytest.mark.parametrize("name", ["nginx", "haproxy"])
async def test_questions_that_wait_go_to_the_other(name: str, tmp_path: Path) -> None:
    program(name)
    slow = Behaviour(decode=40, length=20, slots=2)
    async with fake_node("attic", slow, engine=an_engine(slots=2)) as attic:
        with balancers(tmp_path, (attic,)) as (first, second):
            await knowing(first, 1)
            await knowing(second, 1)
            with proxy(name, tmp_path, (first.address, second.address)) as here:
                connector = aiohttp.TCPConnector(ssl=here.trust)
                async with aiohttp.ClientSession(here.url, connector=connector) as by:
                    asked = [asyncio.create_task(status(by)) for _ in range(8)]
                    await eventually(lambda: attic.llama.busy == 2)
                    first.kill()
                    statuses = await asyncio.gather(*asked)

    assert statuses == [200] * 8


async def test_nginx_asks_a_second_balancer_that_failed_before(tmp_path: Path) -> None:
    program("nginx")

    async def answer(request: web.Request) -> web.Response:
        assert request.path == CHAT
        await asyncio.sleep(0.3)
        return web.Response()

    second, app = free_port(), web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    addresses = (f"127.0.0.1:{free_port()}", f"127.0.0.1:{second}")
    with proxy("nginx", tmp_path, addresses) as here:
        connector = aiohttp.TCPConnector(ssl=here.trust)
        async with aiohttp.ClientSession(here.url, connector=connector) as by:
            assert await status(by) == 502
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", second).start()
            statuses = await asyncio.gather(*(status(by) for _ in range(4)))
            await runner.cleanup()

    assert statuses == [200] * 4


async def status(session: aiohttp.ClientSession) -> int:
    """Put one question."""
    async with session.post(CHAT, json=chat()) as response:
        await response.read()
        return response.status
