"""nginx, HAProxy and Caddy in front of a balancer, with the shipped configurations."""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from node.engines.process import free_port
from tests.balancer.endpoint import CHAT, Endpoint, chat, endpoint, eventually
from tests.deploy.proxies.programs import PROGRAMS, proxy
from tests.fakes.llama import Behaviour
from tests.fakes.node import FakeNode, fake_node
from tests.fakes.reports import an_engine
from tests.patience import PATIENCE

MIB = 2**20
pytestmark = pytest.mark.parametrize("program", PROGRAMS)


@dataclass
class Front:
    """A client of a proxy, with what is behind it."""

    url: str
    session: aiohttp.ClientSession
    node: FakeNode
    balancer: Endpoint

    async def stream(self, **fields: Any) -> aiohttp.ClientResponse:
        """Ask for a stream, and return when its head has come."""
        return await self.session.post(CHAT, json=chat(stream=True, **fields))


@asynccontextmanager
async def front(
    program: str, folder: Path, behaviour: Behaviour, **settings: Any
) -> AsyncGenerator[Front]:
    """Run all of it; nobody listens at the address of the second balancer."""
    async with (
        fake_node(behaviour=behaviour, engine=an_engine(slots=2)) as node,
        endpoint(node, **settings) as balancer,
    ):
        addresses = (balancer.balancer.origin.url.removeprefix("http://"),
                     f"127.0.0.1:{free_port()}")  # fmt: skip
        with proxy(program, folder, addresses) as running:
            async with session_of(running.url, running.trust) as session:
                yield Front(running.url, session, node, balancer)


@asynccontextmanager
async def session_of(url: str, trust: Any) -> AsyncGenerator[aiohttp.ClientSession]:
    """Open a client that believes this certificate alone."""
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    connector = aiohttp.TCPConnector(ssl=trust)
    async with aiohttp.ClientSession(url, connector=connector, timeout=timeout) as made:
        yield made


async def test_events_pass_one_by_one(program: str, tmp_path: Path) -> None:
    async with (
        front(program, tmp_path, Behaviour(decode=20, length=20)) as here,
        await here.stream() as response,
    ):
        first = await response.content.readuntil(b"\n\n")
        writing = here.node.llama.busy
        rest = await response.content.read()

    assert first.startswith(b"data: ")
    assert writing == 1, "the first event came when all was written"
    assert rest.endswith(b"data: [DONE]\n\n")


async def test_a_client_that_leaves_frees_its_slot(
    program: str, tmp_path: Path
) -> None:
    slow = Behaviour(decode=20, length=3000, context=8192)
    async with front(program, tmp_path, slow) as here:
        async with await here.stream() as response:
            await response.content.readuntil(b"\n\n")
            assert here.node.llama.busy == 1
            response.close()
        await eventually(lambda: here.node.llama.busy == 0)

        assert here.node.llama.counters.cancelled == 1


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
async def test_so_does_one_that_leaves_before_an_answer(
    program: str, version: str, tmp_path: Path
) -> None:
    slow = Behaviour(decode=20, length=3000, context=8192)
    async with front(program, tmp_path, slow) as here:
        url = here.url + CHAT
        asked = await asyncio.create_subprocess_exec(
            *("curl", "--silent", "--insecure", version, "--json", json.dumps(chat())),
            url,
        )
        await eventually(lambda: here.node.llama.busy == 1)
        asked.kill()
        await asked.wait()
        await eventually(lambda: here.node.llama.busy == 0)

        assert here.node.llama.counters.cancelled == 1


@pytest.mark.skipif("PROXIES" not in os.environ, reason="slow: make check-proxies")
async def test_a_body_passes_up_to_the_balancers_limit(
    program: str, tmp_path: Path
) -> None:
    async with front(program, tmp_path, Behaviour()) as here:
        largest = await sized(here, 63 * MIB)
        larger = await sized(here, 65 * MIB)

    assert largest[0] == 200
    assert len(here.node.told[-1].body) > 63 * MIB
    assert larger[0] == 413
    assert "body_limit_mib" in larger[1]["error"]["message"]


async def sized(here: Front, size: int) -> tuple[int, Any]:
    """Ask with a body of so many bytes."""
    body = io.BytesIO(json.dumps(chat(user="x" * size)).encode())
    headers = {"content-type": "application/json"}
    async with here.session.post(CHAT, data=body, headers=headers) as response:
        return response.status, await response.json()


async def test_the_page_and_its_live_stream_pass(program: str, tmp_path: Path) -> None:
    async with front(program, tmp_path, Behaviour()) as here:
        async with here.session.get("/", headers={"accept": "text/html"}) as page:
            text = await page.text()
        async with here.session.get("/edgeserve/v1/live") as live:
            first = await live.content.readuntil(b"\n\n")

    assert page.headers["content-security-policy"]
    assert "<html" in text
    assert first.startswith(b"event: ")


async def test_a_client_is_known_by_its_own_address(
    program: str, tmp_path: Path
) -> None:
    async with front(program, tmp_path, Behaviour()) as here:
        forged = {"x-forwarded-for": "192.0.2.7"}
        async with here.session.post(CHAT, json=chat(), headers=forged) as response:
            assert response.status == 200

        assert here.node.told[-1].headers["x-forwarded-for"] == "127.0.0.1"
