"""5,000 half-open connections change nothing for a client, and leave nothing behind."""

from __future__ import annotations

import asyncio
import os
import resource
import secrets
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from balancer.discovery.events import MOST_SILENT
from tests.fleet.fleet import Process, answer, until
from tests.security.asking import CHAT, a_user, chat
from tests.security.conftest import Town
from tests.security.stranger import announce, connected

CONNECTIONS = int(os.environ.get("HALF_OPEN", "5000"))
AT_ONCE = 250
MIB = 2**20
HANDSHAKE = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
REQUEST = b"GET / HTTP/1.1\r\nhost: a\r\n"
MOST_AT_NODE = 256 + 512
"""Handshakes that the node has at once, and what the backlog may add meanwhile."""


@pytest.fixture
def files() -> Iterator[None]:
    """Allow this process as many open files as it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < CONNECTIONS + 500:
        pytest.skip(f"needs {CONNECTIONS + 500} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def edgeserve_of(process: Process) -> Path:
    """Return the folder in /proc of the process that listens."""
    return Path("/proc", str(process.pid))


def open_files(process: Process) -> int:
    return len(list((edgeserve_of(process) / "fd").iterdir()))


def memory(process: Process) -> int:
    """Return its resident memory, in bytes."""
    fields = (edgeserve_of(process) / "statm").read_text().split()
    return int(fields[1]) * resource.getpagesize()


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("at", "beginning"),
    [
        pytest.param("node", b"", id="node, no byte"),
        pytest.param("node", HANDSHAKE, id="node, half a handshake"),
        pytest.param("balancer", b"", id="balancer, no byte"),
        pytest.param("balancer", REQUEST, id="balancer, half a request"),
    ],
)
async def test_half_open_connections_do_not_touch_a_stream(
    town: Town, at: str, beginning: bytes
) -> None:
    target = town.node if at == "node" else town.balancer
    address, port = target.host.address, 8090 if at == "node" else 8080
    opened = list[socket.socket]()

    async def half_open() -> None:
        with suppress(OSError):
            async with asyncio.timeout(5):
                sock = await connected(town.stranger, address, port)
                opened.append(sock)
                if beginning:
                    sock.send(beginning + secrets.token_bytes(4))

    async with a_user(town) as user:
        files_before, memory_before = open_files(target), memory(target)
        body = chat(200, stream=True)  # two seconds
        async with user.session.post(CHAT, json=body) as answer:
            for _ in range(CONNECTIONS // AT_ONCE):
                await asyncio.gather(*(half_open() for _ in range(AT_ONCE)))
            most = open_files(target)
            right = await user.prompts(2)
            text = await answer.text()
        for sock in opened:
            sock.close()
        await until(lambda: open_files(target) <= files_before + 8, "files come back")
        grown = memory(target) - memory_before

    assert len(opened) > CONNECTIONS * 0.9
    assert "w199" in text
    assert text.rstrip().endswith("data: [DONE]")
    assert right == 2
    assert most < (MOST_AT_NODE if at == "node" else CONNECTIONS)
    assert grown < 96 * MIB  # 256 handshakes of 256 KiB each, and some more


async def test_nodes_announced_without_end_take_bounded_memory_and_0_prompts(
    own_town: Town,
) -> None:
    town, host, more = own_town, own_town.stranger, 100

    def flood(number: int) -> None:
        for _ in range(number):
            id_ = secrets.token_hex(16)
            announce(host, f"false{id_[:6]}", id_, host.address, 1)

    async with a_user(town) as user:
        memory_before = memory(town.balancer)

        async def full() -> int:
            return len(await user.members())

        async def flooded() -> int:
            """Announce some more: a balancer that is busy loses what comes."""
            flood(20)
            return await full()

        await answer(flooded, lambda count: count > MOST_SILENT, "it is full")
        flood(more)
        listed = await full()
        right = await user.prompts(4)
        await asyncio.sleep(0.5)
        later = await full()
        grown = memory(town.balancer) - memory_before

    assert listed == later == MOST_SILENT + 1
    assert right == 4
    assert grown < 64 * MIB
