"""Fake server: a small HTTP server that sends exactly the bytes that it is told to.

It notices that a client closes the connection while an answer is written, as engines
do that stop for it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

JSON, TEXT, STREAM = "application/json", "text/plain", "text/event-stream"


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """Its body, decoded."""
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass(frozen=True)
class Answer:
    """What is sent: a body, or the pieces of a stream.

    None among the pieces breaks the connection off there. `repeated`: it is sent twice.
    """

    status: int = 200
    body: bytes | Sequence[bytes | None] = b""
    type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    repeated: bool = False


def answer(found: Any, status: int = 200, **headers: str) -> Answer:
    """Build an answer from JSON, or from bytes that are a text."""
    if isinstance(found, Answer):
        return found
    if isinstance(found, bytes):
        return Answer(status, found, TEXT, headers)
    return Answer(status, json.dumps(found).encode(), JSON, headers)


def streamed(*pieces: bytes | None) -> Answer:
    """Build a stream."""
    return Answer(200, list(pieces), STREAM)


Handle = Callable[[Asked], Awaitable[Answer]]


@dataclass
class LightServer:
    """A running server. `gate`: streams wait for it after their second piece.

    `writing`: streams that are being written. `left`: those that a client did not wait
    for. `version`: with HTTP/1.0 each connection is closed after its answer.
    """

    handle: Handle
    version: str = "HTTP/1.1"
    gate: asyncio.Event | None = None
    writing: int = 0
    left: int = 0
    port: int = 0
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(
        default_factory=set[asyncio.StreamWriter]
    )

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen, at the same port as before."""
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the port and all connections."""
        if self._server is None:
            return
        self._server.close()
        for each in self._writers:
            each.transport.abort()
        await self._server.wait_closed()
        self._server = None

    async def _talk(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._writers.add(writer)
        try:
            while (asked := await read(reader)) is not None:
                if not await self._send(await self.handle(asked), reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _send(
        self, what: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Send an answer; return whether the connection stays open."""
        stays = self.version == "HTTP/1.1"
        writer.write(self._head(what))
        if isinstance(what.body, bytes):
            writer.write(what.body)
            if what.repeated:
                writer.write(self._head(what) + what.body)
            await writer.drain()
            return stays
        self.writing += 1
        try:
            return await self._stream(what.body, reader, writer) and stays
        finally:
            self.writing -= 1

    def _head(self, what: Answer) -> bytes:
        fields = {"content-type": what.type, **what.headers}
        if isinstance(what.body, bytes):
            fields["content-length"] = str(len(what.body))
        elif self.version == "HTTP/1.1":
            fields["transfer-encoding"] = "chunked"
        lines = [f"{self.version} {what.status} X"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        return "\r\n".join([*lines, "", ""]).encode()

    async def _stream(
        self,
        pieces: Sequence[bytes | None],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        chunked = self.version == "HTTP/1.1"
        for number, piece in enumerate(pieces):
            if number == 2 and not await self._waited(reader):
                self.left += 1
                return False
            if piece is None:
                writer.transport.abort()
                return False
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            await writer.drain()
        writer.write(b"0\r\n\r\n" if chunked else b"")
        await writer.drain()
        return True

    async def _waited(self, reader: asyncio.StreamReader) -> bool:
        """Wait for the gate; return whether the client did, too."""
        if self.gate is None:
            return True
        opened = asyncio.ensure_future(self.gate.wait())
        gone = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({opened, gone}, return_when=asyncio.FIRST_COMPLETED)
            return not gone.done()
        finally:
            for each in (opened, gone):
                each.cancel()
            await asyncio.gather(opened, gone, return_exceptions=True)


async def read(reader: asyncio.StreamReader) -> Asked | None:
    """Read one request, None where the client has closed."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    method, path, _ = head[0].split(" ")
    pairs = [line.partition(":") for line in head[1:] if line]
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(method, path, headers, body)


@asynccontextmanager
async def light_server(handle: Handle) -> AsyncGenerator[LightServer]:
    """Serve until the block ends."""
    server = LightServer(handle)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
