"""After a storm of large bodies a balancer is as small as before."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import psutil
import pytest

from tests.edgeserve.http.odd import request
from tests.edgeserve.http.talk import connected
from tests.patience import PATIENCE

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])
"""The loop that counts is that of the process."""

MIB = 2**20
BODY = b'{"model":"huge","messages":["' + b"x" * (24 * MIB) + b'"]}'
COMMAND = (sys.executable, "-m", "edgeserve", "balancer", "start", "--no-discover")


async def test_a_storm_leaves_no_memory_behind() -> None:
    process = subprocess.Popen(
        [*COMMAND, "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        watched = psutil.Process(process.pid)
        await whole(port)
        before = watched.memory_info().rss
        for _ in range(6):
            await asyncio.gather(whole(port), cut(port), left(port), left(port))
        async with asyncio.timeout(PATIENCE):
            while watched.memory_info().rss > before + 100 * MIB:
                await asyncio.sleep(0.1)
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


async def whole(port: int) -> None:
    async with connected(port) as client:
        client.say(request("POST", "/v1/chat/completions", body=BODY))
        assert (await client.answer()).status in {404, 503}


async def cut(port: int) -> None:
    async with connected(port) as client:
        client.say(request("POST", "/v1/chat/completions", body=BODY)[: 9 * MIB])
        await client.writer.drain()


async def left(port: int) -> None:
    async with connected(port) as client:
        client.say(request("POST", "/v1/chat/completions", body=BODY))
        await client.writer.drain()
