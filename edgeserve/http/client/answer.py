"""Upstream response: the body of an answer, read whole or passed on as it comes."""

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
"""Bytes of an answer that may wait to be read; past it the connection pauses."""

Observer = Callable[[bytes], None]
Filter = Callable[[bytes], bytes]


class AnswerSource(Protocol):
    """The connection that an answer comes from."""

    origin: Origin
    id: str

    def stop(self) -> None:
        """Read no more for now."""
        ...

    def go(self) -> None:
        """Read on."""
        ...


class UpstreamResponse:
    """See `Answer`. Holds the bytes that came and were not read yet."""

    __slots__ = (
        "_error", "_filter", "_framing", "_gathers", "_held", "_keeps", "_loop",
        "_pieces", "_sink", "_source", "_waiter", "headers", "status",
    )  # fmt: skip

    def __init__(
        self, source: AnswerSource, head: AnswerHead, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.status = head.status
        self.headers: Mapping[str, str] = head.headers
        self._framing = head.framing
        self._keeps = head.keeps
        self._source = source
        self._loop = loop
        self._pieces: list[bytes] = []
        self._held = 0  # bytes in `_pieces`
        self._gathers = False  # whether the whole body is being read
        self._waiter: asyncio.Future[None] | None = None
        self._sink: ServerResponse | None = None
        self._filter: Filter | None = None
        self._error: Exception | None = None

    @property
    def id(self) -> str:
        """See `Answer.id`."""
        return self._source.id

    @property
    def clean(self) -> bool:
        """Whether the body is whole and nothing followed it."""
        framing = self._framing
        return (
            framing.done and self._keeps and self._error is None and not framing.excess
        )

    # What the connection calls

    def take(self, data: bytes) -> None:
        """Take bytes of the framed body."""
        framing = self._framing
        if framing.done and data:
            framing.excess = data  # more than was announced: not reusable
            return
        try:
            piece = framing.feed(data)
            if piece:
                self._pass_on(piece)
        except BadRequest as error:
            self._fail(
                NodeLost(f"{self._source.origin.url} broke the protocol: {error}")
            )
        except ConnectionError as error:  # the client has gone
            self._fail(error.with_traceback(None))  # its trace holds this object
        except Exception as error:  # noqa: BLE001 - the filter or the reply failed: raised in `_relay`
            self._fail(error)
        if framing.done:
            self._notify()

    def ended(self) -> None:
        """Take the end of the connection, which ends a body without a length."""
        if isinstance(self._framing, UntilClosed):
            self._framing.done = True
            self._notify()

    def lost(self, error: NodeLost) -> None:
        """Take the loss of the connection; it is no error after the body's end."""
        if not self._framing.done and self._error is None:
            self._fail(error)

    def resume(self) -> None:
        """See `Feeder.resume`."""
        self._source.go()

    def _pass_on(self, piece: bytes) -> None:
        sink, filter_ = self._sink, self._filter
        if sink is not None and filter_ is not None:
            sink.put(filter_(piece))
            if sink.connection.paused:
                self._source.stop()
            return
        self._pieces.append(piece)
        self._held += len(piece)
        if not self._gathers:
            self._notify()
            if self._held > HIGH_WATER:
                self._source.stop()

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._notify()

    def _notify(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What the reader calls

    async def read(self) -> bytes:
        """See `Answer.read`."""
        self._gathers = True
        if not self._framing.done:
            self._source.go()
        while not self._framing.done:
            await self._more()
        return self._taken()

    async def chunk(self) -> bytes:
        """See `Answer.chunk`."""
        while not self._pieces and not self._framing.done:
            await self._more()
        return self._taken()

    async def pump(self, reply: Response, observe: Observer) -> None:
        """See `Answer.pump`."""

        def observed(piece: bytes) -> bytes:
            observe(piece)
            return piece

        await self.pump_filtered(reply, observed)

    async def pump_filtered(self, reply: Response, filter_: Filter) -> None:
        """See `Answer.pump_filtered`."""
        if isinstance(reply, ServerResponse):
            await self._relay(reply, filter_)
            return
        while piece := await self.chunk():
            if passed := filter_(piece):
                await reply.write(passed)

    async def _relay(self, reply: ServerResponse, filter_: Filter) -> None:
        """Write each piece to the client in the call that received it."""
        connection = reply.connection
        self._sink, self._filter = reply, filter_
        connection.feeder = self
        try:
            if early := self._taken():
                self._pass_on(early)
            while not self._framing.done and self._error is None:
                await self._more()
        finally:
            self._sink = self._filter = None
            connection.feeder = None
        if self._error is not None:
            self._raise(self._error)
        if connection.paused:
            await connection.drained()

    async def _more(self) -> None:
        if self._error is not None:
            self._raise(self._error)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self._error is not None and not self._pieces:
            self._raise(self._error)

    def _raise(self, error: Exception) -> NoReturn:
        """Raise the error that ended the body, and drop it: its trace holds `self`."""
        self._error = NodeLost(str(error))
        try:
            raise error
        finally:
            del error

    def _taken(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        self._held = 0
        self._source.go()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
