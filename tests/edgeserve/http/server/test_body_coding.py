"""Bodies that come compressed are undone within the limit, or refused."""

from __future__ import annotations

import gzip
import zlib

import pytest
from aiohttp import web

from edgeserve.http import Request, Response
from tests.edgeserve.http.talk import MIB, connected, echo, serving

WORDS = b"the same words again and again, " * 1000


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


CODED = {
    "gzip": gzip.compress(WORDS),
    "x-gzip": gzip.compress(WORDS),
    "GZip": gzip.compress(WORDS),
    "deflate": zlib.compress(WORDS),
    "Deflate": raw_deflate(WORDS),
    "identity": WORDS,
}


@pytest.mark.parametrize("coding", CODED)
@pytest.mark.parametrize("step", [7, 100_000])
async def test_a_compressed_body_arrives_as_it_was(coding: str, step: int) -> None:
    asked: list[Request] = []

    async def handler(request: Request, reply: Response) -> None:
        asked.append(request)
        await echo(request, reply)

    body = CODED[coding]
    async with serving(handler) as port, connected(port) as client:
        client.post(body[:0], extra="X: 1\r\n")
        await client.answer()
        client.say(
            "POST /v1/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
            f"Content-Encoding: {coding}\r\n\r\n"
        )
        for at in range(0, len(body), step):
            piece = body[at : at + step]
            client.say(b"%x\r\n%b\r\n" % (len(piece), piece))
        client.say("0\r\n\r\n")
        got = await client.answer()

    assert (got.status, got.body) == (200, WORDS)
    assert "content-encoding" not in asked[1].headers


@pytest.mark.parametrize("path", ["/v1/x", "/page"])
async def test_a_body_that_would_burst_is_too_large(path: str) -> None:
    bomb = gzip.compress(b"\0" * (8 * MIB))
    async with serving(body_limit=MIB) as port, connected(port) as client:
        client.post(bomb, path, "Content-Encoding: gzip\r\n")
        got = await client.answer()

    assert got.status == 413


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "\xff"])
async def test_an_unsupported_coding_is_refused_before_the_body(coding: str) -> None:
    async with serving() as port, connected(port) as client:
        client.say(
            "POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n"
            f"Expect: 100-continue\r\nContent-Encoding: {coding}\r\n\r\n"
        )
        got = await client.answer()

    assert got.status == 415
    assert got.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize(
    "body",
    [b"plain", CODED["gzip"][:-3], CODED["gzip"] + b"more", CODED["deflate"]],
    ids=["not compressed", "cut", "with a tail", "of another kind"],
)
async def test_a_broken_body_is_a_bad_request(body: bytes) -> None:
    async with serving() as port, connected(port) as client:
        client.post(body, extra="Content-Encoding: gzip\r\n")
        got = await client.answer()

    assert got.status == 400


async def test_a_page_of_ours_gets_its_body_as_it_was() -> None:
    async def page(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    routes = [web.post("/page", page)]
    async with serving(echo, routes) as port, connected(port) as client:
        client.post(CODED["gzip"], "/page", "Content-Encoding: gzip\r\n")
        got = await client.answer()

    assert got.body == WORDS


async def test_no_body_needs_no_undoing() -> None:
    async with serving() as port, connected(port) as client:
        client.post(b"", extra="Content-Encoding: gzip\r\n")

        assert (await client.answer()).status == 200
