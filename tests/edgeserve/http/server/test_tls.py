"""The relay speaks TLS on both sides, where it is asked to."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from edgeserve.errors import NodeLost
from edgeserve.http import Origin, bind, listen, upstream
from tests.edgeserve.http.talk import MIB, echo, is_ours, serving

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


async def test_a_certificate_nobody_vouches_for_is_a_lost_node(
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
