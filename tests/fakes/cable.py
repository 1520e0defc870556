"""A network cable between two parts of a test: it can be cut, frozen and repaired."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from edgeserve.http.types import Origin

PIECE = 65536


@dataclass
class Cable:
    """Carries every connection to `far`. `opened` counts them, `open` those that last.

    Cut: connections break at once, new ones break as well. Frozen: nothing moves, and
    nobody is told.
    """

    far: Origin
    near: Origin = Origin("127.0.0.1", 0)
    opened: int = 0
    _writers: set[asyncio.StreamWriter] = field(
        default_factory=set[asyncio.StreamWriter]
    )
    _whole: bool = True
    _moving: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        """Where to connect instead."""
        return self.near.url

    @property
    def open(self) -> int:
        """How many connections are open now."""
        return len(self._writers) // 2

    def cut(self) -> None:
        """Break what is open, and whatever comes."""
        self._whole = False
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        """Carry new connections again."""
        self._whole = True

    def freeze(self) -> None:
        """Move nothing."""
        self._moving.clear()

    def thaw(self) -> None:
        """Move what has waited, and go on."""
        self._moving.set()

    async def carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Carry one connection both ways."""
        self.opened += 1
        if not self._whole:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(
                self.far.host, self.far.port
            )
        except OSError:
            writer.transport.abort()
            return
        both = {writer, far_writer}
        self._writers |= both
        try:
            await asyncio.gather(
                self._one_way(reader, far_writer), self._one_way(far_reader, writer)
            )
        finally:
            self._writers -= both
            for each in both:
                each.transport.abort()

    async def _one_way(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while piece := await reader.read(PIECE):
                await self._moving.wait()
                writer.write(piece)
                await writer.drain()
            writer.close()
        except ConnectionError:
            writer.transport.abort()


@asynccontextmanager
async def cable(far: Origin) -> AsyncGenerator[Cable]:
    """Lay a cable to `far` for the length of the block."""
    laid = Cable(far)
    laid.thaw()
    tasks = set[asyncio.Task[None]]()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await laid.carry(reader, writer)
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(carry, "127.0.0.1", 0)
    laid.near = Origin("127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        yield laid
    finally:
        server.close()
        laid.thaw()
        laid.cut()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
