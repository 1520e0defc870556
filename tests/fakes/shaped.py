"""A slow network between two parts of a test: bytes/s and a delay, each way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from edgeserve.http.raw import RawStream
from edgeserve.http.types import Origin

MBIT = 1e6 / 8
SOON = 0.0005
"""Timers are late by a millisecond: what is due so soon is passed on at once. The relay
itself takes as long as a switch."""

BUFFER = 262144
"""Bytes on the way in one direction, past which the sender waits."""


@dataclass(frozen=True)
class Shape:
    """How slow a network is: bytes/s each way, and seconds one way."""

    name: str
    rate: float
    delay: float


class Direction(RawStream):
    """One end of a connection: what comes here goes to `far`, late and slowly.

    The rate is that of the whole link: `link` is when it will have sent all.
    """

    def __init__(self, shape: Shape, link: list[float]) -> None:
        super().__init__()
        self.far: RawStream | None = None
        self._shape, self._link = shape, link
        self._loop = asyncio.get_running_loop()
        self._waiting = self._late = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read nothing before there is a far end."""
        super().connection_made(transport)
        self.stop()

    def data_received(self, data: bytes) -> None:
        """Pass it on when the link has sent it."""
        now = self._loop.time()
        sent = max(now, self._link[0]) + len(data) / self._shape.rate
        self._link[0] = sent
        self._waiting += len(data)
        if self._waiting > BUFFER:
            self.stop()
        due = sent + self._shape.delay
        if due - now < SOON and not self._late:
            self._arrive(data)
            return
        self._late += 1
        self._loop.call_at(due, self._arrive_late, data)

    def _arrive_late(self, data: bytes) -> None:
        self._late -= 1
        self._arrive(data)

    def _arrive(self, data: bytes) -> None:
        self._waiting -= len(data)
        if self.far is not None:
            self.far.write(data)
        if self._waiting <= BUFFER:
            self.go()

    def connection_lost(self, exc: Exception | None) -> None:
        """Hang up on the other side, after the last bytes."""
        super().connection_lost(exc)
        self._loop.call_later(self._shape.delay, self._hang_up)

    def _hang_up(self) -> None:
        if self.far is not None:
            self.far.close()


@asynccontextmanager
async def shaped(far: Origin, shape: Shape) -> AsyncGenerator[Origin]:
    """Lay a network of this shape to `far`; yields where to connect instead."""
    loop = asyncio.get_running_loop()
    there, back = [0.0], [0.0]
    ends = set[RawStream]()

    def made() -> RawStream:
        near = Direction(shape, there)
        ends.add(near)
        task = loop.create_task(lead(near))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return near

    async def lead(near: Direction) -> None:
        _, end = await loop.create_connection(
            lambda: Direction(shape, back), far.host, far.port
        )
        ends.add(end)
        near.far, end.far = end, near
        near.go()
        end.go()

    tasks = set[asyncio.Task[None]]()
    server = await loop.create_server(made, "127.0.0.1", 0)
    try:
        yield Origin("127.0.0.1", server.sockets[0].getsockname()[1], far.tls)
    finally:
        server.close()
        for each in ends:
            each.abort()
