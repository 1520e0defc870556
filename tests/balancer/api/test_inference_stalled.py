"""A client that takes nothing of its answer is no fault of an engine."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from balancer.failover.stall import Progress
from edgeserve.config.settings import SharedSettings
from edgeserve.http import bind
from edgeserve.http.server.limits import Limits, limits_of
from tests.balancer.api.test_inference import said
from tests.balancer.endpoint import CHAT, Endpoint, chat, endpoint, eventually
from tests.fakes.cable import cable
from tests.fakes.llama import Behaviour
from tests.fakes.node import FakeNode, fake_node
from tests.patience import PATIENCE

WORDS = 16_000
LONG = Behaviour(length=WORDS, decode=10_000_000)
TICKS = 20
"""Looks at a paused request; three times as long as an engine may be silent here."""


class Pauses:
    """Counts how often a client was found paused."""

    count = 0


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    """Let half a second be a long time, and count the looks at paused clients."""
    counted, excused = Pauses(), Progress.wait_from

    def seen(self: Progress, now: float) -> None:
        counted.count += 1
        excused(self, now)

    monkeypatch.setattr(Progress, "wait_from", seen)
    monkeypatch.setattr("edgeserve.http.limits_of", shallow)
    monkeypatch.setattr("edgeserve.http.bind", narrow)
    monkeypatch.setattr("balancer.failover.watchdog.EVERY_SECONDS", 0.05)
    monkeypatch.setattr("balancer.failover.stall.UNLEARNED_SECONDS", 0.3)
    monkeypatch.setattr("balancer.failover.stall.SHORTEST_SECONDS", 0.3)
    return counted


def shallow(settings: SharedSettings) -> Limits:
    """Let little wait for a client."""
    return replace(limits_of(settings), high_water=16384)


def narrow(host: str, port: int) -> socket.socket:
    """Let little wait in the system, too: accepted sockets are like this one."""
    sock = bind(host, port)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return sock


class Sleeper:
    """A client with small buffers that reads only on request."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer

    async def rest(self) -> bytes:
        """Read all that comes until the balancer closes."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()


@asynccontextmanager
async def sleeper(
    balancer: Endpoint, path: str = CHAT, **fields: Any
) -> AsyncGenerator[Sleeper]:
    """Send one request, and read nothing of its answer yet."""
    origin = balancer.balancer.origin
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (origin.host, origin.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
    body = json.dumps(chat(**fields) if path == CHAT else fields).encode()
    writer.write(
        b"POST %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body)
    )
    try:
        yield Sleeper(reader, writer)
    finally:
        writer.transport.abort()


def content(answer: bytes) -> bytes:
    """Undo the chunks."""
    _, _, rest = answer.partition(b"\r\n\r\n")
    if b"content-length" in answer[:1000].lower():
        return rest
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        if not int(size, 16):
            return body
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    raise AssertionError("the answer was cut")


async def healths(balancer: Endpoint) -> list[Any]:
    return [each["health"] for each in (await balancer.get("/edgeserve/v1/nodes")).json]


def chats(node: FakeNode) -> int:
    return sum(each.path == CHAT for each in node.told)


ALL = " ".join(f"w{number}" for number in range(WORDS))


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_pauses_gets_its_answer_and_no_engine_fails(
    stream: bool, pauses: Pauses
) -> None:
    async with (
        fake_node("a", LONG) as first,
        fake_node("b") as second,
        endpoint(first, second) as balancer,
        sleeper(balancer, stream=stream) as client,
    ):
        await eventually(lambda: pauses.count >= TICKS)
        answer = await client.rest()
        asked = len(first.told) + len(second.told)
        health = await healths(balancer)

    body = content(answer)
    whole = None if stream else json.loads(body)["choices"][0]["message"]["content"]
    assert (whole or said(body)) == ALL
    assert (asked, health) == (1, [{}, {}])


async def test_also_where_the_engines_whole_answer_passes_as_it_is(
    pauses: Pauses,
) -> None:
    async with (
        fake_node("a", LONG) as first,
        fake_node("b") as second,
        endpoint(first, second) as balancer,
        sleeper(
            balancer, "/completion", prompt="x", n_probs=0, return_tokens=True
        ) as client,
    ):
        await eventually(lambda: pauses.count >= TICKS)
        answer = await client.rest()
        asked = len(first.told) + len(second.told)
        health = await healths(balancer)

    assert json.loads(content(answer))["content"] == ALL
    assert (asked, health) == (1, [{}, {}])


async def test_an_answer_that_goes_on_elsewhere_may_wait_for_its_client_too(
    pauses: Pauses,
) -> None:
    broken = Behaviour(length=WORDS, decode=1e7, fault="break", fault_tokens=5)
    async with (
        fake_node("a", broken) as first,
        fake_node("b", LONG) as second,
        fake_node("c") as third,
        endpoint(first, second, third) as balancer,
        sleeper(balancer, stream=True) as client,
    ):
        await eventually(lambda: pauses.count >= TICKS)
        answer = await client.rest()

    assert said(content(answer)) == ALL
    assert (chats(second), chats(third)) == (1, 0)


async def test_only_the_limit_for_clients_that_do_not_read_ends_it(
    pauses: Pauses,
) -> None:
    async with (
        fake_node("a", LONG) as first,
        fake_node("b") as second,
        endpoint(first, second, stall_seconds=1.0) as balancer,
        sleeper(balancer, stream=True),
    ):
        await eventually(lambda: pauses.count > 0)
        await eventually(lambda: balancer.balancer.state.in_flight.inside == 0)
        health = await healths(balancer)
        asked = len(first.told) + len(second.told)

    assert (asked, health) == (1, [{}, {}])


async def test_a_connection_lost_while_the_client_pauses_is_no_fault(
    pauses: Pauses,
) -> None:
    """A node drops clients that read nothing for long, a balancer among them."""
    async with (
        fake_node("a", Behaviour(length=WORDS, decode=10_000)) as first,
        fake_node("b", LONG) as second,
        cable(first.origin) as line,
        endpoint(line.url, second) as balancer,
    ):
        await _lose(balancer, first, second, line, pauses)


async def _lose(
    balancer: Endpoint, first: FakeNode, second: FakeNode, line: Any, pauses: Pauses
) -> None:
    async with sleeper(balancer, stream=True) as client:
        await eventually(lambda: pauses.count > 0)
        assert chats(first) == 1
        line.cut()
        answer = await client.rest()
    assert said(content(answer)) == ALL
    assert chats(second) == 1
    health = (await balancer.get("/edgeserve/v1/nodes")).json
    assert all(each["health"] == {} for each in health)
