"""Raw streams: connections that carry bytes both ways after an answer 101.

Client and server end up with the same thing. It is read here, or joined with another
one, so that each passes on what the other receives and slows down with it.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol, cast

PROTOCOL = "edgeserve-raw"
"""What the `Upgrade` field names."""

UNREAD_BYTES = 262144
"""Past this, reading pauses until what has come is taken."""


class Former(Protocol):
    """What had a connection before, and still counts it."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Note its end."""
        ...


class RawStream(asyncio.Protocol):
    """One connection; `before` is the protocol that had it, and is told of its end."""

    def __init__(self, before: Former | None = None) -> None:
        self.lost = False
        self.transport: asyncio.Transport
        self._before = before
        self._other: RawStream | None = None
        self._data = bytearray()
        self._stopped = self.full = False
        self._woken = asyncio.Event()
        self._over = asyncio.Event()

    @classmethod
    def taken(cls, transport: asyncio.Transport, before: Former) -> RawStream:
        """Take a connection over from another protocol."""
        stream = cls(before)
        transport.set_protocol(stream)
        stream.connection_made(transport)
        return stream

    def join(self, other: RawStream) -> None:
        """Pass on what comes, both ways, until one ends; then the other ends, too."""
        self.lead_to(other)
        other.lead_to(self)

    def lead_to(self, other: RawStream) -> None:
        """Pass on what comes, and end the other one at the end."""
        self._other = other
        if self._data:
            other.write(bytes(self._data))
            self._data.clear()
        if self.lost:
            other.close()
        elif other.full:
            self.stop()
        else:
            self.go()

    async def over(self) -> None:
        """Wait for the end."""
        await self._over.wait()

    def write(self, data: bytes) -> None:
        """Send bytes, without waiting."""
        if not self.lost:
            self.transport.write(data)

    async def send(self, data: bytes) -> None:
        """Send bytes, and wait for room. Raises ConnectionError where it has ended."""
        self.write(data)
        while self.full and not self.lost:
            self._woken.clear()
            await self._woken.wait()
        if self.lost:
            raise ConnectionResetError("the other side hung up")

    def close(self) -> None:
        """Send what was written, then end."""
        self.transport.close()

    def abort(self) -> None:
        """End at once."""
        self.transport.abort()

    async def until(self, end: bytes, most: int) -> bytes:
        """Return bytes up to and with `end`; raises ConnectionError where it ends."""
        while (at := self._data.find(end)) < 0:
            if len(self._data) > most:
                raise ConnectionAbortedError("the other side breaks the protocol")
            await self._more()
        return self._take(at + len(end))

    async def exactly(self, count: int) -> bytes:
        """Return so many bytes; raises ConnectionError where it ends before."""
        while len(self._data) < count:
            await self._more()
        return self._take(count)

    async def skip(self, count: int) -> None:
        """Read and forget so many bytes; raises ConnectionError where it ends."""
        while count > 0:
            if not self._data:
                await self._more()
            count -= len(self._take(min(count, len(self._data))))

    def _take(self, count: int) -> bytes:
        data = bytes(self._data[:count])
        del self._data[:count]
        self.go()
        return data

    async def _more(self) -> None:
        if self.lost:
            raise ConnectionResetError("the other side hung up")
        self._woken.clear()
        self.go()
        await self._woken.wait()

    def stop(self) -> None:
        """Read no more for now."""
        if not self._stopped and not self.lost:
            self._stopped = True
            self.transport.pause_reading()

    def go(self) -> None:
        """Read on."""
        if self._stopped and not self.lost and not self.transport.is_closing():
            self._stopped = False
            self.transport.resume_reading()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the transport; small pieces are not held back."""
        self.transport = cast(asyncio.Transport, transport)
        sock: socket.socket | None = transport.get_extra_info("socket")
        if sock is not None and sock.family in {socket.AF_INET, socket.AF_INET6}:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on, or keep them."""
        if self._other is not None:
            self._other.transport.write(data)
            return
        self._data += data
        self._woken.set()
        if len(self._data) > UNREAD_BYTES:
            self.stop()

    def pause_writing(self) -> None:
        """Read no more from the other side: this one cannot take it."""
        self.full = True
        if self._other is not None:
            self._other.stop()

    def resume_writing(self) -> None:
        """Read on from the other side."""
        self.full = False
        self._woken.set()
        if self._other is not None:
            self._other.go()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the other side, too."""
        self.lost = True
        self._woken.set()
        self._over.set()
        if self._other is not None:
            self._other.close()
        if self._before is not None:
            self._before.connection_lost(exc)
