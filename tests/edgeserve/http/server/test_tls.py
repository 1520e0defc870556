"""The relay speaks TLS on both sides, where it is asked to."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeserve.errors import NodeLost
from edgeserve.http import Origin, Request, Response, bind, listen, upstream
from tests.edgeserve.http.talk import MIB, echo, is_ours, serving
from tests.patience import PATIENCE

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
         "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", cert,
         "-days", "1", "-subj", "/CN=a", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


async def test_bodies_pass_through_tls(certificate: tuple[Path, Path]) -> None:
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(*certificate)
    theirs = ssl.create_default_context(cafile=str(certificate[0]))
    sock, body = bind("127.0.0.1", 0), b"x" * MIB
    async with (
        listen(sock, echo, is_ours, [], body_limit=MIB, tls=lambda: ours) as port,
        upstream(connect_seconds=30, tls=theirs) as up,
    ):
        origin = Origin("127.0.0.1", port, tls=True)
        for _ in range(2):
            async with up.ask(origin, "POST", "/v1/x", {}, body) as answer:
                assert await answer.read() == body


async def test_an_untrusted_certificate_is_a_lost_node(
    certificate: tuple[Path, Path],
) -> None:
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(*certificate)
    sock = bind("127.0.0.1", 0)
    async with (
        listen(sock, echo, is_ours, [], body_limit=MIB, tls=lambda: ours) as port,
        upstream(connect_seconds=30) as up,
    ):
        with pytest.raises(NodeLost, match="self-signed certificate"):
            async with up.ask(Origin("127.0.0.1", port, tls=True), "GET", "/v1/x", {}):
                pass


async def test_a_plain_port_ends_a_tls_handshake_at_once() -> None:
    async with serving() as port:
        with pytest.raises(ssl.SSLError, match="handshake failure"):
            await asyncio.open_connection(
                "127.0.0.1", port, ssl=ssl.create_default_context()
            )


async def waiting_for(
    certificate: tuple[Path, Path], leave: Callable[[asyncio.StreamWriter], None]
) -> None:
    """Have a client leave while its answer is awaited; returns once that is noticed."""
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(*certificate)
    begun, ended = asyncio.Event(), asyncio.Event()

    async def handler(_: Request, reply: Response) -> None:
        await reply.start(200, {})
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    sock = bind("127.0.0.1", 0)
    async with listen(
        sock, handler, is_ours, [], body_limit=MIB, tls=lambda: ours
    ) as port:
        theirs = ssl.create_default_context(cafile=str(certificate[0]))
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=theirs)
        writer.write(b"GET /v1/x HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            await begun.wait()
            leave(writer)
            await ended.wait()
        writer.transport.abort()


def closes(writer: asyncio.StreamWriter) -> None:
    writer.close()


def aborts(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


def shuts_its_half(writer: asyncio.StreamWriter) -> None:
    """End the stream below TLS, without a word of its own."""
    sock = writer.get_extra_info("socket")
    with socket.socket(fileno=os.dup(sock.fileno())) as copy:
        copy.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("leave", [closes, aborts, shuts_its_half])
async def test_a_client_that_leaves_is_noticed_at_once(
    certificate: tuple[Path, Path], leave: Callable[[asyncio.StreamWriter], None]
) -> None:
    await waiting_for(certificate, leave)


async def test_a_slow_reader_slows_its_own_answer(
    certificate: tuple[Path, Path],
) -> None:
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(*certificate)
    total, ahead = 32 * MIB, 0
    paused = asyncio.Event()

    async def handler(_: Request, reply: Response) -> None:
        await reply.start(200, {"content-type": "text/plain"})
        nonlocal ahead
        for _each in range(total // MIB):
            writing = asyncio.ensure_future(reply.write(b"x" * MIB))
            await asyncio.sleep(0)
            if not writing.done():
                paused.set()
            await writing
            ahead += MIB
        await reply.finish()

    sock = bind("127.0.0.1", 0)
    async with listen(
        sock, handler, is_ours, [], body_limit=MIB, tls=lambda: ours
    ) as port:
        theirs = ssl.create_default_context(cafile=str(certificate[0]))
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=theirs, limit=MIB
        )
        writer.write(b"GET /v1/x HTTP/1.0\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"200" in head
            await paused.wait()
            assert ahead < total
            size = 0
            while piece := await reader.read(MIB):
                size += len(piece)
        writer.close()

    assert size == total
