"""Speak HTTP by hand: a client that may misbehave, a server that does as it is told."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

from aiohttp import web

from edgeserve.http import Handler, Limits, Origin, Request, Response, bind, listen
from tests.patience import PATIENCE

MIB = 2**20


def is_ours(path: str) -> bool:
    return path.startswith("/v1/")


def unseen(_: bytes) -> None:
    """Look at nothing of what is pumped."""


async def echo(request: Request, reply: Response) -> None:
    """Answer with what came."""
    headers = {"content-type": "text/plain", "x-target": request.target}
    await reply.send(200, headers, request.body)


@asynccontextmanager
async def serving(
    handler: Handler = echo,
    routes: Iterable[web.AbstractRouteDef] = (),
    *,
    body_limit: int = 4 * MIB,
    stop_seconds: float = 1.0,
    limits: Limits | None = None,
) -> AsyncGenerator[int]:
    """Run the fast front on a free port of loopback."""
    sock = bind("127.0.0.1", 0)
    async with listen(
        sock,
        handler,
        is_ours,
        routes,
        body_limit=body_limit,
        stop_seconds=stop_seconds,
        limits=limits or Limits(),
    ) as port:
        yield port


class Got(NamedTuple):
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Client:
    """One connection to a server, spoken by hand."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def say(self, data: bytes | str) -> None:
        self.writer.write(data.encode() if isinstance(data, str) else data)

    def post(self, body: bytes = b"", path: str = "/v1/x", extra: str = "") -> None:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{extra}"
        self.say(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(PATIENCE):
            raw = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = (
            raw.decode(errors="surrogateescape").rstrip("\r\n").split("\r\n")
        )
        found = re.fullmatch(r"HTTP/1\.[01] (\d{3}) .+", first)
        assert found, first
        pairs = (line.split(": ", 1) for line in lines)
        return int(found[1]), {name.lower(): value for name, value in pairs}

    async def chunk(self) -> bytes:
        """Read one chunk of a chunked body; b"" is the last."""
        async with asyncio.timeout(PATIENCE):
            size = int((await self.reader.readline()).strip(), 16)
            data = await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
        return data

    async def rest(self) -> bytes:
        """Read until the server closes."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()

    async def answer(self, *, mute: bool = False) -> Got:
        status, headers = await self.head()
        if mute or status in {100, 204, 304}:
            return Got(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            pieces: list[bytes] = []
            while piece := await self.chunk():
                pieces.append(piece)
            return Got(status, headers, b"".join(pieces))
        if "content-length" not in headers:
            return Got(status, headers, await self.rest())
        async with asyncio.timeout(PATIENCE):
            body = await self.reader.readexactly(int(headers["content-length"]))
        return Got(status, headers, body)


@asynccontextmanager
async def connected(port: int) -> AsyncGenerator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=MIB)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


Script = Callable[[Client], Awaitable[None]]


@asynccontextmanager
async def server(script: Script) -> AsyncGenerator[Origin]:
    """Run a server that does `script` on every connection, then closes it."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await script(Client(reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the relay has left: some tests are about that
        except asyncio.CancelledError:
            writer.transport.abort()
            return  # asyncio's streams would log a cancelled connection
        finally:
            tasks.discard(task)
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield Origin("127.0.0.1", listener.sockets[0].getsockname()[1])
    finally:
        listener.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks)


async def a_request(client: Client) -> bytes:
    """Read one request with Content-Length; return its body."""
    head = await client.reader.readuntil(b"\r\n\r\n")
    found = re.search(rb"content-length: (\d+)", head.lower())
    return await client.reader.readexactly(int(found[1])) if found else b""


def answered(body: bytes, extra: str = "") -> bytes:
    """Render a plain answer."""
    return (
        f"HTTP/1.1 200 OK\r\n{extra}content-length: {len(body)}\r\n\r\n".encode() + body
    )


def in_chunks(*pieces: bytes) -> bytes:
    """Render an answer in chunks."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces)
    return (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"
    )
