"""Nothing crosses the fleet channel before both ends have proved that they belong."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from edgeserve.errors import NotProven
from edgeserve.http import Origin, Request, Response, bind, listen, upstream
from edgeserve.http.channel import accepting, proved
from edgeserve.http.channel.accepting import Proving
from edgeserve.http.channel.opening import FleetChannel
from edgeserve.security.certificates import (
    SERVER_NAME,
    Certificate,
    fingerprint_of,
    fleet_context,
    new_certificate,
    server_context,
)
from edgeserve.security.proof import HELLO, MAC, MAGIC, REPLY, ClientProof
from edgeserve.security.tokens import FleetTokens
from tests.fakes.tokens import TOKEN, GivenTokens
from tests.patience import PATIENCE

OURS = GivenTokens(TOKEN)
NODE = new_certificate("node")
OTHER = new_certificate("other")


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse and sweep at once: that guessing takes time, tests/security promises."""
    monkeypatch.setattr(accepting, "REFUSED_SECONDS", 0.01)
    monkeypatch.setattr(proved, "SWEEP_SECONDS", 0.05)


@dataclass
class Node:
    """A port of the fleet channel that says hello, and what it has received."""

    origin: Origin = Origin("127.0.0.1", 0)
    requests: list[Request] = field(default_factory=list[Request])


@asynccontextmanager
async def a_node(
    tokens: FleetTokens = OURS, certificate: Certificate = NODE
) -> AsyncGenerator[Node]:
    node, context = Node(), server_context(certificate)

    async def hello(request: Request, reply: Response) -> None:
        node.requests.append(request)
        await reply.send(200, {"content-type": "text/plain"}, b"hello")

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="a page")

    async with listen(
        bind("127.0.0.1", 0),
        hello,
        lambda path: path == "/hello",
        [web.get("/page", page)],
        body_limit=2**20,
        tls=lambda: context,
        greeting=Proving(tokens, lambda: certificate.fingerprint),
    ) as port:
        node.origin = Origin("127.0.0.1", port, tls=True)
        yield node


async def asked(
    origin: Origin, path: str = "/hello", tokens: FleetTokens = OURS
) -> bytes:
    async with (
        asyncio.timeout(PATIENCE),
        upstream(connect_seconds=PATIENCE, channel=FleetChannel(tokens)) as pool,
        pool.ask(origin, "GET", path, {}) as answer,
    ):
        assert origin.id in {"", answer.id}
        return await answer.read()


@asynccontextmanager
async def opened(
    origin: Origin,
) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter, str]]:
    """Open TLS by hand; yields the fingerprint of the other side, too."""
    reader, writer = await asyncio.open_connection(
        origin.host, origin.port, ssl=fleet_context(), server_hostname=SERVER_NAME
    )
    session: ssl.SSLObject = writer.get_extra_info("ssl_object")
    der = session.getpeercert(binary_form=True)
    assert der is not None
    try:
        async with asyncio.timeout(PATIENCE):
            yield reader, writer, fingerprint_of(der)
    finally:
        writer.close()


async def test_a_request_crosses_after_the_proof() -> None:
    async with a_node() as node:
        assert await asked(node.origin) == b"hello"
        assert await asked(node.origin, "/page") == b"a page"


async def test_many_requests_need_one_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    proofs = 0

    class Counted(ClientProof):
        def answer(self, reply: bytes) -> bytes:
            nonlocal proofs
            proofs += 1
            return super().answer(reply)

    monkeypatch.setattr("edgeserve.http.channel.opening.ClientProof", Counted)
    async with (
        a_node() as node,
        upstream(connect_seconds=PATIENCE, channel=FleetChannel(OURS)) as pool,
    ):
        for _ in range(100):
            async with pool.ask(node.origin, "GET", "/hello", {}) as answer:
                assert await answer.read() == b"hello"

    assert (proofs, len(node.requests)) == (1, 100)


async def test_a_server_without_the_token_gets_no_request() -> None:
    async with a_node(GivenTokens("another-token-for-a-fleet")) as node:
        with pytest.raises(NotProven, match="another fleet token"):
            await asked(node.origin)

    assert node.requests == []


async def test_a_client_without_the_token_gets_no_answer() -> None:
    async with a_node() as node:
        with pytest.raises(NotProven, match="another fleet token"):
            await asked(node.origin, tokens=GivenTokens("another-token-for-a-fleet"))

    assert node.requests == []


async def test_a_node_is_known_by_its_certificate() -> None:
    async with a_node() as node, a_node(certificate=OTHER) as other:
        here = Origin("127.0.0.1", node.origin.port, id=NODE.id)
        there = Origin("127.0.0.1", other.origin.port, id=NODE.id)

        assert await asked(here) == b"hello"
        with pytest.raises(NotProven, match="another machine"):
            await asked(there)

    assert other.requests == []


async def test_a_machine_in_the_middle_gets_nothing() -> None:
    async with a_node() as node, in_the_middle(node.origin) as (middle, seen):
        with pytest.raises(NotProven, match="does not prove"):
            await asked(middle)

    assert node.requests == []
    assert not any(b"hello" in each or TOKEN.encode() in each for each in seen)


@asynccontextmanager
async def in_the_middle(
    origin: Origin,
) -> AsyncGenerator[tuple[Origin, list[bytes]]]:
    """Run a machine that passes on all it gets, in both directions, and reads it."""
    seen = list[bytes]()

    async def passed(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(4096):
            seen.append(data)
            writer.write(data)
            await writer.drain()
        writer.close()

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with opened(origin) as (inner, out, _):
            await asyncio.gather(
                passed(reader, out), passed(inner, writer), return_exceptions=True
            )

    server = await asyncio.start_server(met, "127.0.0.1", 0, ssl=server_context(OTHER))
    async with server:
        yield Origin("127.0.0.1", server.sockets[0].getsockname()[1], tls=True), seen


async def test_a_recorded_exchange_is_of_no_use() -> None:
    async with a_node() as node:
        async with opened(node.origin) as (reader, writer, fingerprint):
            proof = ClientProof(OURS.keys(), fingerprint)
            writer.write(proof.hello)
            last = proof.answer(await reader.readexactly(REPLY))
        async with opened(node.origin) as (reader, writer, _):
            writer.write(proof.hello)
            await reader.readexactly(REPLY)
            writer.write(last + b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n")
            assert await reader.read() == b""

    assert node.requests == []


async def test_an_older_tls_is_refused() -> None:
    old = fleet_context()
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with a_node() as node:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection(
                "127.0.0.1", node.origin.port, ssl=old, server_hostname=SERVER_NAME
            )


async def test_a_server_that_speaks_no_tls_gets_nothing_but_a_greeting() -> None:
    got = list[bytes]()

    async def older(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.read(4096))
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(older, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(NotProven, match="older edgeserve"):
            await asked(Origin("127.0.0.1", port))

    assert len(got) == 1
    assert got[0][0] == 0x16


@pytest.mark.parametrize(
    ("path", "status"), [("/health", b"200"), ("/hello", b"401"), ("/page", b"401")]
)
async def test_https_without_a_proof_gets_health_and_nothing_else(
    path: str, status: bytes
) -> None:
    async with a_node() as node, opened(node.origin) as (reader, writer, _):
        writer.write(b"GET %s HTTP/1.1\r\nhost: a\r\n\r\n" % path.encode())
        answer = await reader.read()

    assert answer.split()[1] == status
    assert node.requests == []


@pytest.mark.parametrize(
    "sent",
    [
        MAGIC,
        MAGIC + bytes(HELLO - len(MAGIC)),
        MAGIC + bytes(HELLO - len(MAGIC) + MAC),
        bytes(HELLO),
        b"GET / HTTP/1.1\r\n" + b"a" * 100_000,
    ],
)
async def test_what_is_no_proof_ends_the_connection(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepting, "PROOF_SECONDS", 0.2)
    async with a_node() as node, opened(node.origin) as (reader, writer, _):
        writer.write(sent)
        try:
            answer = await reader.read()
        except ConnectionError:
            answer = b""

    assert b"hello" not in answer
    assert node.requests == []


async def test_many_that_never_prove_themselves_keep_no_other_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accepting, "MOST_UNPROVEN", 4)
    async with a_node() as node:
        strangers = [opened(node.origin) for _ in range(12)]
        held = [await each.__aenter__() for each in strangers]

        assert await asked(node.origin) == b"hello"

        for each in strangers:
            await each.__aexit__(None, None, None)
    assert len(held) == 12


async def test_a_token_that_is_replaced_counts_at_the_next_connection() -> None:
    theirs = GivenTokens(TOKEN)
    async with a_node(theirs) as node:
        assert await asked(node.origin) == b"hello"
        theirs.__init__("the-next-token-of-this-fleet", TOKEN)  # type: ignore[misc]
        assert await asked(node.origin) == b"hello"
        theirs.__init__("the-next-token-of-this-fleet")  # type: ignore[misc]
        with pytest.raises(NotProven):
            await asked(node.origin)


async def test_a_connection_ends_with_its_token() -> None:
    theirs, ours = GivenTokens(TOKEN), GivenTokens(TOKEN)
    async with (
        a_node(theirs) as node,
        upstream(connect_seconds=PATIENCE, channel=FleetChannel(ours)) as pool,
        opened(node.origin) as (reader, writer, fingerprint),
    ):
        proof = ClientProof(OURS.keys(), fingerprint)
        writer.write(proof.hello)
        writer.write(proof.answer(await reader.readexactly(REPLY)))
        writer.write(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200")
        async with pool.ask(node.origin, "GET", "/hello", {}) as answer:
            assert await answer.read() == b"hello"

        theirs.__init__("the-next-token-of-this-fleet")  # type: ignore[misc]
        with suppress(ConnectionError):
            assert await reader.read() == b""
        with pytest.raises(NotProven):
            async with pool.ask(node.origin, "GET", "/hello", {}):
                pass


async def test_a_pool_drops_what_has_lost_its_token() -> None:
    ours = GivenTokens(TOKEN)
    async with (
        a_node() as node,
        upstream(connect_seconds=PATIENCE, channel=FleetChannel(ours)) as pool,
    ):
        async with pool.ask(node.origin, "GET", "/hello", {}) as answer:
            await answer.read()
        ours.__init__("the-next-token-of-this-fleet")  # type: ignore[misc]

        async with asyncio.timeout(PATIENCE):
            while True:  # until the next sweep
                try:
                    async with pool.ask(node.origin, "GET", "/hello", {}) as answer:
                        await answer.read()
                except NotProven:
                    break
                await asyncio.sleep(0.05)
