"""Open files run out: idle connections neither end a process nor keep anyone out."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from tests.balancer.endpoint import CHAT
from tests.edgeserve.http.odd import request
from tests.edgeserve.http.talk import connected
from tests.fakes.llama import Behaviour
from tests.fakes.node import fake_node
from tests.patience import PATIENCE

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])
"""The loop that counts is that of the process."""

FILES = 256
IDLE = 400
FEW = (
    "import os, resource, sys;"
    f"resource.setrlimit(resource.RLIMIT_NOFILE, ({FILES}, {FILES}));"
    "os.execv(sys.executable, [sys.executable, '-m', 'edgeserve', *sys.argv[1:]])"
)


@contextmanager
def running(*arguments: str) -> Generator[tuple[subprocess.Popen[str], int]]:
    """Run a command with few files; yields it and its port."""
    process = subprocess.Popen(
        [sys.executable, "-c", FEW, *arguments, "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "listening on" in line
        yield process, int(line.rpartition(":")[2])
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


@asynccontextmanager
async def idling(port: int) -> AsyncGenerator[None]:
    """Hold connections that send nothing."""
    opening = [asyncio.open_connection("127.0.0.1", port) for _ in range(IDLE)]
    opened = await asyncio.gather(*opening)
    try:
        yield
    finally:
        for _, writer in opened:
            writer.transport.abort()


async def statuses(port: int, asked: Sequence[bytes]) -> list[int]:
    found: list[int] = []
    for each in asked:
        async with connected(port) as client:
            client.say(each)
            found.append((await client.answer()).status)
    return found


def open_files(process: subprocess.Popen[str]) -> int:
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


async def test_a_balancer_goes_on_answering() -> None:
    body = b'{"model":"small","messages":[{"role":"user","content":"hi"}]}'
    asked = [request("GET", "/health"), request("POST", CHAT, body=body)] * 5
    async with fake_node("pi", Behaviour()) as node:
        arguments = ("balancer", "start", "--no-discover", "--node", node.url)
        with running(*arguments) as (process, port):
            await until_it_serves(port)
            async with idling(port):
                assert await statuses(port, asked) == [200] * len(asked)
                assert open_files(process) < FILES * 3 // 4
            assert process.poll() is None


async def until_it_serves(port: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            async with connected(port) as client:
                client.say(request("GET", "/health"))
                if b'"engines":1' in (await client.answer()).body:
                    return
            await asyncio.sleep(0.05)


async def test_a_node_goes_on_answering(tmp_path: Path) -> None:
    arguments = ("node", "start", "--no-advertise", "--models-dir", str(tmp_path))
    with running(*arguments) as (process, port):
        async with idling(port):
            asked = [request("GET", "/health"), request("GET", "/v1/models")] * 5
            assert await statuses(port, asked) == [200] * len(asked)
            assert open_files(process) < FILES * 3 // 4
        assert process.poll() is None
