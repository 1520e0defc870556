"""Upstream response: a body held, gathered, or passed on as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import NoReturn, Protocol

from edgeserve.errors import BadRequest, NodeLost
from edgeserve.http.framing import UntilClosed
from edgeserve.http.heads import AnswerHead
from edgeserve.http.server.response import ServerResponse
from edgeserve.http.types import Origin, Response

HIGH_WATER = 262144
"""Bytes of an answer that may wait for whoever asked."""

See = Callable[[bytes], None]
Sieve = Callable[[bytes], bytes]


class Tap(Protocol):
    """The connection that an answer comes from."""

    origin: Origin

    def stop(self) -> None:
        """Read no more for now."""
        ...

    def go(self) -> None:
        """Read on."""
        ...


class UpstreamResponse:
    """See `Answer`. Holds what came and was not asked for yet."""

    __slots__ = (
        "_error", "_framing", "_gathers", "_held", "_keeps", "_loop",
        "_pieces", "_sieve", "_sink", "_tap", "_wakes", "headers", "status",
    )  # fmt: skip

    def __init__(
        self, tap: Tap, head: AnswerHead, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.status = head.status
        self.headers: Mapping[str, str] = head.headers
        self._framing = head.framing
        self._keeps = head.keeps
        self._tap = tap
        self._loop = loop
        self._pieces: list[bytes] = []
        self._held = 0  # bytes in `_pieces`
        self._gathers = False  # whether someone wants the whole and no less
        self._wakes: asyncio.Future[None] | None = None
        self._sink: ServerResponse | None = None
        self._sieve: Sieve | None = None
        self._error: Exception | None = None

    @property
    def clean(self) -> bool:
        """Whether the body is whole and nothing followed it."""
        framing = self._framing
        return (
            framing.done and self._keeps and self._error is None and not framing.excess
        )

    # What the link calls

    def take(self, data: bytes) -> None:
        """Take bytes of the framed body."""
        framing = self._framing
        if framing.done and data:
            framing.excess = data  # more than was announced: not to be trusted again
            return
        try:
            piece = framing.feed(data)
            if piece:
                self._pass_on(piece)
        except BadRequest as error:
            self._fail(NodeLost(f"{self._tap.origin.url} broke the protocol: {error}"))
        except ConnectionError as error:  # the client has gone
            self._fail(error.with_traceback(None))  # its trace would hold us
        except Exception as error:  # noqa: BLE001 - the sieve or the reply failed: raised where it is pumped
            self._fail(error)
        if framing.done:
            self._wake()

    def ended(self) -> None:
        """Take the end of the connection: for some bodies, their proper end."""
        if isinstance(self._framing, UntilClosed):
            self._framing.done = True
            self._wake()

    def lost(self, error: NodeLost) -> None:
        """Take the loss of the connection, which matters only before the body's end."""
        if not self._framing.done and self._error is None:
            self._fail(error)

    def resume(self) -> None:
        """See `Paused.resume`."""
        self._tap.go()

    def _pass_on(self, piece: bytes) -> None:
        sink, sieve = self._sink, self._sieve
        if sink is not None and sieve is not None:
            sink.put(sieve(piece))
            if sink.wire.paused:
                self._tap.stop()
            return
        self._pieces.append(piece)
        self._held += len(piece)
        if not self._gathers:
            self._wake()
            if self._held > HIGH_WATER:
                self._tap.stop()

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._wakes is not None and not self._wakes.done():
            self._wakes.set_result(None)

    # What whoever asked calls

    async def read(self) -> bytes:
        """See `Answer.read`."""
        self._gathers = True
        if not self._framing.done:
            self._tap.go()
        while not self._framing.done:
            await self._more()
        return self._taken()

    async def chunk(self) -> bytes:
        """See `Answer.chunk`."""
        while not self._pieces and not self._framing.done:
            await self._more()
        return self._taken()

    async def pump(self, reply: Response, see: See) -> None:
        """See `Answer.pump`."""

        def seen(piece: bytes) -> bytes:
            see(piece)
            return piece

        await self.sift(reply, seen)

    async def sift(self, reply: Response, sieve: Sieve) -> None:
        """See `Answer.sift`."""
        if isinstance(reply, ServerResponse):
            await self._relay(reply, sieve)
            return
        while piece := await self.chunk():
            if passed := sieve(piece):
                await reply.write(passed)

    async def _relay(self, reply: ServerResponse, sieve: Sieve) -> None:
        """Let each piece go straight from the one connection to the other."""
        wire = reply.wire
        self._sink, self._sieve = reply, sieve
        wire.feeder = self
        try:
            if early := self._taken():
                self._pass_on(early)
            while not self._framing.done and self._error is None:
                await self._more()
        finally:
            self._sink = self._sieve = None
            wire.feeder = None
        if self._error is not None:
            self._raise(self._error)
        if wire.paused:
            await wire.drained()

    async def _more(self) -> None:
        if self._error is not None:
            self._raise(self._error)
        self._wakes = self._loop.create_future()
        try:
            await self._wakes
        finally:
            self._wakes = None
        if self._error is not None and not self._pieces:
            self._raise(self._error)

    def _raise(self, error: Exception) -> NoReturn:
        """Raise what ended the body, and hold it no longer: its trace holds us."""
        self._error = NodeLost(str(error))
        try:
            raise error
        finally:
            del error

    def _taken(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        self._held = 0
        self._tap.go()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
