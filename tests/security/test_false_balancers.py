"""A machine that says that it is a balancer gets no report, and no engine."""

from __future__ import annotations

import asyncio
import secrets
import ssl
import time

import pytest

from edgeserve.security.certificates import SERVER_NAME, fleet_context
from edgeserve.security.proof import (
    HELLO,
    MAC,
    REFUSAL,
    REPLY,
    ClientProof,
    fleet_key,
)
from tests.fleet.fleet import SECONDS, TOKEN
from tests.security.asking import a_user
from tests.security.conftest import Town
from tests.security.stranger import (
    ANY_CERTIFICATE,
    connected,
    fingerprint_at,
    opened,
    said_to,
)

EVENTS = (
    b"GET /edgeserve/v1/events HTTP/1.1\r\nhost: a\r\n"
    b"authorization: Bearer %s\r\n\r\n" % TOKEN.encode()
)
PORT = 8090
GUESSES = 64


def reports(answer: bytes) -> int:
    """Count what an answer has of a node's report."""
    return answer.count(b"event: report") + answer.count(b"attic")


@pytest.mark.parametrize("with_token", [True, False], ids=["token", "no token"])
@pytest.mark.parametrize("path", ["events", "node"])
async def test_https_without_a_proof_gets_0_reports(
    town: Town, path: str, with_token: bool
) -> None:
    asked = EVENTS.replace(b"/events", f"/{path}".encode())
    if not with_token:
        asked = asked.replace(TOKEN.encode(), b"")
    host = town.node.host.address
    async with a_user(town):
        got = await said_to(town.stranger, host, PORT, [asked], ANY_CERTIFICATE)

    assert got.split()[1] == b"401"
    assert reports(got) == 0


async def test_tls_of_an_older_version_ends_in_its_handshake(town: Town) -> None:
    older = fleet_context()
    older.minimum_version = ssl.TLSVersion.TLSv1_2
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    async with a_user(town):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with opened(town.stranger, town.node.host.address, PORT, older):
                pass


async def test_another_token_gets_a_refusal_and_0_reports(town: Town) -> None:
    async with a_user(town):
        got = await guessed(town, "a-token-of-another-fleet")

    assert got == REFUSAL


async def guessed(town: Town, token: str) -> bytes:
    """Try a token as a balancer does, then go on as if it were right."""
    host = town.node.host.address
    got = b""
    async with opened(town.stranger, host, PORT, ANY_CERTIFICATE) as (reader, writer):
        proof = ClientProof((fleet_key(token),), fingerprint_at(writer))
        writer.write(proof.hello + secrets.token_bytes(MAC) + EVENTS)
        while data := await reader.read(65536):
            got += data
    return got


async def _more(reader: asyncio.StreamReader) -> bytes:
    data = await reader.read(65536)
    assert data, "the connection ended without a report"
    return data


async def test_a_recorded_handshake_gets_0_reports(town: Town) -> None:
    host = town.node.host.address
    async with a_user(town):
        async with opened(town.stranger, host, PORT, ANY_CERTIFICATE) as (r, w):
            proof = ClientProof((fleet_key(TOKEN),), fingerprint_at(w))
            w.write(proof.hello)
            last = proof.answer(await r.readexactly(REPLY))
            w.write(last + EVENTS)
            right = b""
            while not reports(right):
                right += await _more(r)
        replayed = await said_to(
            town.stranger, host, PORT, [proof.hello, last, EVENTS], ANY_CERTIFICATE
        )
        at_once = await said_to(
            town.stranger, host, PORT, [proof.hello + last + EVENTS], ANY_CERTIFICATE
        )

    assert len(replayed) == len(at_once) == REPLY
    assert reports(replayed) + reports(at_once) == 0


async def test_guesses_take_a_second_each(town: Town) -> None:
    tokens = [f"a-guess-with-a-number-{number}" for number in range(GUESSES)]
    async with a_user(town) as user:
        began = time.monotonic()
        answers = await asyncio.gather(*(guessed(town, each) for each in tokens))
        seconds = time.monotonic() - began
        right = await user.prompts(4)

    assert answers == [REFUSAL] * GUESSES
    assert GUESSES / seconds <= GUESSES
    assert right == 4


async def test_slow_and_damaged_handshakes_are_closed(town: Town) -> None:
    """Each within its limit, with 0 reports, and without effect on a client."""
    hello = ssl.MemoryBIO()
    session = ANY_CERTIFICATE.wrap_bio(ssl.MemoryBIO(), hello, False, SERVER_NAME)
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    record = hello.read()
    host = town.node.host.address

    async def in_single_bytes() -> bytes:
        sock = await connected(town.stranger, host, PORT)
        reader, writer = await asyncio.open_connection(sock=sock)
        try:
            for byte in record:
                writer.write(bytes((byte,)))
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            return b""
        finally:
            writer.transport.abort()
            del reader
        return b"it had time"

    async def broken(sent: bytes) -> bytes:
        return await said_to(town.stranger, host, PORT, [sent])

    async with a_user(town) as user:
        async with asyncio.timeout(SECONDS):
            slow, *others = await asyncio.gather(
                in_single_bytes(),
                broken(b"\x16" + secrets.token_bytes(65536)),
                broken(b"\x16\x03\x01\xff\xff" + bytes(65536)),
                broken(record[:-1]),
                broken(record + bytes(HELLO)),
            )
        right = await user.prompts(4)

    assert slow == b""
    assert all(len(each) < 2048 and reports(each) == 0 for each in others)
    assert right == 4
