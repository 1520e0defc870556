"""Shapes that two servers may read as different requests: refused, never guessed at."""

from __future__ import annotations

import pytest

from edgeserve.http import Request, Response
from tests.edgeserve.http.talk import connected, serving

POST = "POST /v1/x HTTP/1.1\r\nHost: a\r\n"
TE = "Transfer-Encoding: chunked\r\n"
SMUGGLED = "GET /v1/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

SHAPES = {
    "length and chunks": f"{POST}Content-Length: 5\r\n{TE}\r\n",
    "chunks and length": f"{POST}{TE}Content-Length: 5\r\n\r\n",
    "two lengths": f"{POST}Content-Length: 0\r\nContent-Length: 5\r\n\r\n",
    "the same length twice": f"{POST}Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
    "a list of lengths": f"{POST}Content-Length: 5, 5\r\n\r\n",
    "a signed length": f"{POST}Content-Length: +5\r\n\r\n",
    "a hexadecimal length": f"{POST}Content-Length: 0x5\r\n\r\n",
    "a length with a blank inside": f"{POST}Content-Length: 5 0\r\n\r\n",
    "a length past 64 bits": f"{POST}Content-Length: 18446744073709551621\r\n\r\n",
    "an empty length": f"{POST}Content-Length:\r\n\r\n",
    "a coding that is not chunked": f"{POST}Transfer-Encoding: identity\r\n\r\n",
    "a coding before chunked": f"{POST}Transfer-Encoding: gzip, chunked\r\n\r\n",
    "a coding after chunked": f"{POST}Transfer-Encoding: chunked, identity\r\n\r\n",
    "chunked twice": f"{POST}Transfer-Encoding: chunked, chunked\r\n\r\n",
    "two codings": f"{POST}Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n",
    "a hidden coding": f"{POST}Transfer-Encoding: \x0bchunked\r\n\r\n",
    "a mangled coding": f"{POST}Transfer-Encoding: xchunked\r\n\r\n",
    "a quoted coding": f'{POST}Transfer-Encoding: "chunked"\r\n\r\n',
    "a blank before the colon": f"{POST}Transfer-Encoding : chunked\r\n\r\n",
    "a folded line": f"{POST}X: a\r\n Content-Length: 5\r\n\r\n",
    "a fold first": "POST /v1/x HTTP/1.1\r\n Host: a\r\n\r\n",
    "bare line feeds": "POST /v1/x HTTP/1.1\nHost: a\nContent-Length: 5\n\n\r\n\r\n",
    "one bare line feed": f"{POST}X: a\nContent-Length: 5\r\n\r\n",
    "a bare carriage return": f"{POST}X: a\rContent-Length: 5\r\n\r\n",
    "an end of bare line feeds": f"{POST}X: a\n\n{SMUGGLED}",
    "a NUL in a value": f"{POST}X: a\0b\r\n\r\n",
    "a NUL in a name": f"{POST}X\0: a\r\n\r\n",
    "a nameless field": f"{POST}: a\r\n\r\n",
    "no host": "POST /v1/x HTTP/1.1\r\n\r\n",
    "two hosts": "POST /v1/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "chunks from an old client": f"POST /v1/x HTTP/1.0\r\n{TE}\r\n",
    "a crowd of fields": POST + "X: y\r\n" * 200 + "\r\n",
    "no version": "POST /v1/x\r\n\r\n",
    "another version": "POST /v1/x HTTP/2.0\r\nHost: a\r\n\r\n",
    "an unheard-of version": "POST /v1/x HTTP/1.2\r\nHost: a\r\n\r\n",
    "another protocol": "POST /v1/x RTSP/1.0\r\nHost: a\r\n\r\n",
    "the preface of HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a blank in the target": "POST /v1/x /v1/y HTTP/1.1\r\nHost: a\r\n\r\n",
    "a tunnel": "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
}  # fmt: skip

CHUNKED = f"{POST}Transfer-Encoding: chunked\r\n\r\n"

CHUNKS = {
    "a signed size": "+5\r\nhello\r\n0\r\n\r\n",
    "a size with 0x": "0x5\r\nhello\r\n0\r\n\r\n",
    "a size with an underscore": "0_5\r\nhello\r\n0\r\n\r\n",
    "a size with blanks": " 5\r\nhello\r\n0\r\n\r\n",
    "a size past 32 bits": "100000005\r\nhello\r\n0\r\n\r\n",
    "no size": "\r\nhello\r\n0\r\n\r\n",
    "a size ended by a line feed": "5\nhello\r\n0\r\n\r\n",
    "a longer chunk than announced": "5\r\nhello!\r\n0\r\n\r\n",
    "a chunk ended by a line feed": "5\r\nhello\n0\r\n\r\n",
    "a chunk ended by nothing": "5\r\nhello0\r\n\r\n",
    "a trailer with a line feed": "0\r\nX: a\nY: b\r\n\r\n",
    "an endless size line": "5;" + "x" * 70_000,
    "a body in crumbs": "1\r\nx\r\n" * 20_000,
    "a body of extensions": ("1;" + "y" * 200 + "\r\nx\r\n") * 1_000,
    "an endless trailer": "0\r\n" + "X: a\r\n" * 10_000,
}


async def refused(text: str) -> None:
    """Promise: 400, closed, and no handler has seen anything but what came before."""
    seen: list[str] = []

    async def handler(request: Request, reply: Response) -> None:
        seen.append(request.path)
        await reply.send(200, {}, b"")

    async with serving(handler) as port, connected(port) as client:
        client.post(b"", "/v1/before")
        before = await client.answer()
        client.say(text.encode("latin-1"))
        client.say(SMUGGLED)
        got = await client.answer()
        rest = await client.rest()

    assert before.status == 200
    assert got.status == 400
    assert got.headers["connection"] == "close"
    assert rest == b""
    assert seen == ["/v1/before"]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
async def test_an_ambiguous_head_is_refused(shape: str) -> None:
    await refused(shape)


@pytest.mark.parametrize("shape", CHUNKS.values(), ids=CHUNKS)
async def test_an_ambiguous_chunk_is_refused(shape: str) -> None:
    await refused(CHUNKED + shape)


async def test_a_request_within_a_body_stays_a_body() -> None:
    inner = b"GET /v1/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    async with serving() as port, connected(port) as client:
        client.post(inner)
        got = await client.answer()

    assert got.body == inner
