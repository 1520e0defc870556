"""A TLS port serves real clients, however many connections hang in their handshake."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path

import pytest

from edgeserve.http import Handler, Handoff, Limits, Origin, bind, listen, upstream
from edgeserve.http.server.acceptor import Newcomer, Newcomers
from edgeserve.runtime.background import failures
from tests.edgeserve.http.certificates import Certificate, a_certificate
from tests.edgeserve.http.talk import MIB, connected, echo, is_ours
from tests.patience import PATIENCE

FLOOD = 5000


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return a_certificate(tmp_path_factory.mktemp("tls"))


@asynccontextmanager
async def serving(
    certificate: Certificate,
    limits: Limits | None = None,
    handler: Handler = echo,
    leave: Handoff | None = None,
) -> AsyncGenerator[int]:
    context = certificate.server()
    async with listen(
        bind("127.0.0.1", 0),
        handler,
        is_ours,
        [],
        body_limit=MIB,
        limits=limits or Limits(),
        tls=lambda: context,
        leave=leave,
    ) as port:
        yield port


async def asked(certificate: Certificate, port: int) -> bytes:
    """Send one request as a real client does; return its answer's body."""
    async with (
        asyncio.timeout(PATIENCE),
        upstream(connect_seconds=PATIENCE, tls=certificate.client()) as up,
        up.ask(Origin("127.0.0.1", port, tls=True), "POST", "/v1/x", {}, b"hi") as got,
    ):
        return await got.read()


async def half_open(port: int, first: bytes = b"") -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    sock.sendall(first)
    return sock


async def closed(sock: socket.socket) -> None:
    """Wait until the server has closed a connection."""
    async with asyncio.timeout(PATIENCE):
        try:
            while await asyncio.get_running_loop().sock_recv(sock, 4096):
                pass
        except ConnectionError:
            pass


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def settled(expected: int) -> None:
    """Wait until as many files are open as before."""
    async with asyncio.timeout(PATIENCE):
        while open_files() > expected:
            await asyncio.sleep(0.01)


@pytest.fixture
def many_files() -> object:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * FLOOD), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize("first", [b"", b"\x16\x03\x01\x02\x00"], ids=["dumb", "begun"])
async def test_thousands_of_half_open_handshakes_do_not_stop_a_client(
    certificate: Certificate, first: bytes
) -> None:
    async with serving(certificate) as port:
        assert await asked(certificate, port) == b"hi"  # what opens files once
        before = open_files()
        with ExitStack() as stack:
            for _ in range(FLOOD):
                stack.enter_context(closing(await half_open(port, first)))

            assert await asked(certificate, port) == b"hi"
            assert open_files() - before < FLOOD + 2 * Limits().handshakes
        await settled(before)


async def test_plain_http_is_told_to_speak_tls(certificate: Certificate) -> None:
    async with serving(certificate) as port, connected(port) as client:
        client.post(b"a question", path="/v1/messages")
        got = await client.answer()

        assert got.status == 400
        error = json.loads(got.body)["error"]
        assert error["message"] == (
            f"this port speaks TLS only; use https://127.0.0.1:{port}"
        )
        assert await client.rest() == b""


async def test_a_silent_connection_is_closed_in_time(certificate: Certificate) -> None:
    limits = Limits(head_seconds=0.05)
    async with serving(certificate, limits) as port:
        for first in (b"", b"\x16\x03"):
            with closing(await half_open(port, first)) as sock:
                await closed(sock)


async def test_a_broken_handshake_ends_its_connection_only(
    certificate: Certificate,
) -> None:
    failed = dict(failures.counts)
    async with serving(certificate) as port:
        assert await asked(certificate, port) == b"hi"  # what opens files once
        before = open_files()
        for broken in (b"\x16\x03\x01\x00\x05junk!", b"\x16" + os.urandom(500)):
            with closing(await half_open(port, broken)) as sock:
                await closed(sock)

        assert await asked(certificate, port) == b"hi"
        await settled(before)
    assert failures.counts == failed


async def test_the_context_is_asked_for_each_connection(
    certificate: Certificate, tmp_path: Path
) -> None:
    renewed = a_certificate(tmp_path)
    contexts = [certificate.server(), renewed.server()]
    async with listen(
        bind("127.0.0.1", 0), echo, is_ours, [], body_limit=MIB, tls=contexts.pop
    ) as port:
        assert await asked(renewed, port) == b"hi"
        assert await asked(certificate, port) == b"hi"


async def test_a_handshake_that_began_before_the_port_was_left_gets_its_answer(
    certificate: Certificate,
) -> None:
    leave = Handoff()
    async with serving(certificate, leave=leave) as port:
        sock = socket.create_connection(("127.0.0.1", port))
        await asyncio.sleep(0.05)  # accepted; a later one would be refused
        leave.begin()
        assert not leave.left.is_set()

        reader, writer = await asyncio.open_connection(
            sock=sock, ssl=certificate.client(), server_hostname="127.0.0.1"
        )
        writer.write(b"GET /v1/x HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
            await leave.left.wait()
        writer.close()
        with pytest.raises(ConnectionError):
            socket.create_connection(("127.0.0.1", port))


async def test_a_port_without_connections_is_left_at_once(
    certificate: Certificate,
) -> None:
    leave = Handoff()
    async with serving(certificate, leave=leave):
        leave.begin()

        assert leave.left.is_set()


async def test_connections_wait_while_no_file_can_be_opened(
    certificate: Certificate,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with serving(certificate) as port:
        client = socket.socket()
        lowest = os.dup(0)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
            client.connect(("127.0.0.1", port))
            await asyncio.sleep(0.05)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            os.close(lowest)
            client.close()

        assert await asked(certificate, port) == b"hi"


async def test_a_greeting_speaks_before_http(certificate: Certificate) -> None:
    class Greeting(asyncio.Protocol):
        def __init__(self, http: Callable[[], asyncio.Protocol]) -> None:
            self.http = http

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            assert data == b"magic"
            assert isinstance(self.transport, asyncio.Transport | object)
            inner = self.http()
            self.transport.set_protocol(inner)
            inner.connection_made(self.transport)
            self.transport.write(b"welcome")  # type: ignore[attr-defined]

    context = certificate.server()
    for tls in (None, lambda: context):
        async with listen(
            bind("127.0.0.1", 0), echo, is_ours, [], body_limit=MIB,
            tls=tls, greeting=Greeting,
        ) as port:  # fmt: skip
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=certificate.client() if tls else None
            )
            writer.write(b"magic")
            async with asyncio.timeout(PATIENCE):
                assert await reader.readexactly(7) == b"welcome"
                writer.write(b"GET /v1/x HTTP/1.0\r\nHost: a\r\n\r\n")
                assert (await reader.read()).startswith(b"HTTP/1.1 200")
            writer.close()


def newcomers(*peers: str) -> list[Newcomer]:
    return [Newcomer(socket.socket(), peer) for peer in peers]


def test_a_flood_from_one_address_displaces_itself() -> None:
    all_ = newcomers("real", "flood", "flood", "flood", "flood")
    here = Newcomers(3)

    displaced = []
    for each in all_:
        if (surplus := here.enter(each)) is not None:
            here.leave(surplus)
            displaced.append(surplus)

    assert displaced == all_[1:3]
    assert len(here) == 3
    for each in all_:
        each.sock.close()


def test_among_many_addresses_the_one_that_waits_longest_goes() -> None:
    all_ = newcomers("a", "b", "c")
    here = Newcomers(2)

    assert [here.enter(each) for each in all_] == [None, None, all_[0]]
    assert here.leave(all_[0])
    assert not here.leave(all_[0])
    for each in all_:
        each.sock.close()
