"""A whole node in this process, asked over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiohttp

from edgeserve.config.settings import NodeSettings
from node.app import serve
from tests.patience import PATIENCE


@asynccontextmanager
async def served(
    settings: NodeSettings,
) -> AsyncGenerator[tuple[aiohttp.ClientSession, asyncio.Event]]:
    """Run a node; yield a client of it once it answers, and what stops it."""
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(settings, stop))
    url = f"http://127.0.0.1:{settings.port}"
    try:
        async with aiohttp.ClientSession(url) as client:
            await answering(client, serving)
            yield client, stop
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE):
            await serving


async def answering(client: aiohttp.ClientSession, serving: asyncio.Task[None]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not serving.done():
            try:
                async with client.get("/health"):
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.01)
