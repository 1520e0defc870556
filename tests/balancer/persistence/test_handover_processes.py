"""A balancer is restarted under load, and no client notices."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from edgeserve.config.paths import admin_key_file
from tests.balancer.api.test_inference import said
from tests.balancer.endpoint import CHAT, chat
from tests.fakes.llama import Behaviour
from tests.fakes.node import FakeNode, fake_node
from tests.fakes.servers import fake_server, listed
from tests.node.adopter import Adopter, adopter
from tests.patience import PATIENCE


@asynccontextmanager
async def balancer(
    port: int, folder: Path, node: FakeNode | Adopter, *flags: str
) -> AsyncGenerator[tuple[Process, str]]:
    """Start a balancer process; yields it and its URL once it listens."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edgeserve", "balancer", "start", "--no-discover"),
        *("--port", str(port), "--state-dir", str(folder), "--node", node.url, *flags),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    try:
        assert process.stdout is not None
        line = ""
        async with asyncio.timeout(PATIENCE):
            while "listening on" not in line:
                line = (await process.stdout.readline()).decode()
                assert line, "it ended before it listened"
        yield process, line.split()[-1]
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


class Load:
    """Clients that ask without a pause, each on a connection that it keeps."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answered = 0
        self.failed: list[str] = []
        self.over = asyncio.Event()

    async def client(self, *, stream: bool) -> None:
        async with aiohttp.ClientSession(self.url) as session:
            while not self.over.is_set():
                await self._ask(session, stream=stream)

    async def _ask(self, session: aiohttp.ClientSession, *, stream: bool) -> None:
        try:
            async with session.post(
                CHAT, json=chat(stream=stream, max_tokens=4)
            ) as answer:
                body = await answer.read()
            if answer.status == 200 and text_in(body, stream=stream) == "w0 w1 w2 w3":
                self.answered += 1
            else:
                self.failed.append(f"{answer.status} {body!r}")
        except (aiohttp.ClientError, OSError) as error:
            self.failed.append(repr(error))


def text_in(body: bytes, *, stream: bool) -> str:
    if stream:
        return said(body)
    text: str = json.loads(body)["choices"][0]["message"]["content"]
    return text


async def long_stream(url: str) -> bytes:
    async with (
        aiohttp.ClientSession(url) as session,
        session.post(CHAT, json=chat(stream=True, max_tokens=100)) as answer,
    ):
        return await answer.read()


async def nodes(url: str) -> int:
    async with aiohttp.ClientSession(url) as session, session.get("/health") as health:
        count: int = (await health.json())["nodes"]
        return count


async def until(load: Load, count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while load.answered < count and not load.failed:
            await asyncio.sleep(0.01)


async def test_a_restart_under_load_fails_no_request(tmp_path: Path) -> None:
    behaviour = Behaviour(decode=40, length=100, slots=16)
    async with (
        fake_node(behaviour=behaviour) as node,
        balancer(0, tmp_path, node) as (old, url),
    ):
        port = int(url.rpartition(":")[2])
        async with asyncio.timeout(PATIENCE):
            while not await nodes(url):
                await asyncio.sleep(0.02)
        load = Load(url)
        clients = [
            asyncio.create_task(load.client(stream=number % 2 == 0))
            for number in range(6)
        ]
        await until(load, 12)
        running = asyncio.create_task(long_stream(url))
        async with balancer(port, tmp_path, node, "--takeover") as (new, _):
            so_far = load.answered
            await until(load, so_far + 30)
            load.over.set()
            await asyncio.gather(*clients)
            assert load.failed == []
            assert said(await running) == " ".join(f"w{n}" for n in range(100))
            async with asyncio.timeout(PATIENCE):
                assert await old.wait() == 0
            assert await nodes(url) == 1
            assert new.returncode is None

    assert load.answered > 40


async def test_a_server_that_was_added_serves_from_the_first_request_on(
    tmp_path: Path,
) -> None:
    async with (
        fake_node() as node,
        fake_server({"/v1/models": listed("other")}) as server,
        balancer(0, tmp_path, node) as (old, url),
    ):
        port = int(url.rpartition(":")[2])
        key = admin_key_file(tmp_path, port).read_text().strip()
        async with aiohttp.ClientSession(
            url, headers={"authorization": f"Bearer {key}"}
        ) as session:
            body = {"url": server.url, "name": "gpu"}
            async with session.post("/edgeserve/v1/servers", json=body) as added:
                assert added.status == 200
        async with balancer(port, tmp_path, node, "--takeover"):
            async with (
                aiohttp.ClientSession(url) as session,
                session.post(CHAT, json=chat(model="other")) as answer,
            ):
                assert answer.status == 200
            async with asyncio.timeout(PATIENCE):
                assert await old.wait() == 0


async def test_a_server_that_a_node_adopted_serves_from_the_first_request_on(
    tmp_path: Path,
) -> None:
    async def ask(url: str) -> int:
        async with (
            aiohttp.ClientSession(url) as session,
            session.post(CHAT, json=chat(model="other")) as answer,
        ):
            return answer.status

    async with (
        fake_server({"/v1/models": listed("other")}) as server,
        adopter(tmp_path, server.url) as node,
        balancer(0, tmp_path, node) as (_, url),
    ):
        async with asyncio.timeout(PATIENCE):
            while await ask(url) != 200:
                await asyncio.sleep(0.05)
        port = int(url.rpartition(":")[2])
        async with balancer(port, tmp_path, node, "--takeover"):
            assert await ask(url) == 200


async def test_without_a_running_balancer_takeover_says_what_to_do(
    tmp_path: Path,
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edgeserve", "balancer", "start", "--takeover"),
        *("--state-dir", str(tmp_path)),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said_there = await process.communicate()

    assert process.returncode == 2
    assert b"start without --takeover" in said_there


async def test_an_unusable_state_folder_does_not_stop_a_restart(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    async with fake_node() as node, balancer(0, deep, node) as (process, url):
        assert await nodes(url) <= 1
        assert process.returncode is None
