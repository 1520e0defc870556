"""A node in this process, whose event stream is followed; its engines only pretend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest

from edgeserve.config.settings import NodeSettings
from edgeserve.wire import NodeReport, decode
from tests.node.served import served
from tests.patience import PATIENCE

CHAT = {"messages": [{"role": "user", "content": "hello"}], "stream": True}
EVERY = 0.1

Seen = Callable[[NodeReport], object]


class Watched:
    """A node in this process, whose event stream is followed."""

    def __init__(self, client: aiohttp.ClientSession) -> None:
        self.client = client

    async def until(self, seen: Seen) -> NodeReport:
        """Follow the events until the node's report is as wanted."""
        async with (
            asyncio.timeout(PATIENCE),
            self.client.get("/edgeserve/v1/events") as answer,
        ):
            while line := await answer.content.readline():
                if line.startswith((b"event: report", b"event: engine")):
                    report = await self.report()
                    if seen(report):
                        return report
        pytest.fail("the events ended")

    async def report(self) -> NodeReport:
        async with self.client.get("/edgeserve/v1/node") as answer:
            return decode(await answer.read(), NodeReport)

    async def until_listed(self, *names: str) -> None:
        """Wait until exactly these models are loaded, as a balancer lists them."""
        async with asyncio.timeout(PATIENCE):
            while True:
                async with self.client.get("/v1/models") as answer:
                    found = await answer.json()
                listed = {
                    each["id"].partition(":")[0]
                    for each in found["data"]
                    if each["state"] == "loaded"
                }
                if listed == set(names):
                    return
                await asyncio.sleep(0.05)

    async def looks(self, number: int = 4) -> None:
        """Let the node look at the folder so often."""
        await asyncio.sleep(number * EVERY)

    async def chat(self, name: str) -> bytes:
        body = {**CHAT, "model": name}
        async with self.client.post("/v1/chat/completions", json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.read()


@asynccontextmanager
async def running(settings: NodeSettings) -> AsyncGenerator[Watched]:
    async with served(settings) as (client, _), asyncio.timeout(5 * PATIENCE):
        yield Watched(client)


def ready(*names: str) -> Seen:
    """Whether exactly these models are served, all of them ready."""

    def seen(report: NodeReport) -> bool:
        states = {each.model: each.state for each in report.engines}
        return states == dict.fromkeys(names, "ready")

    return seen
