"""One connection to an upstream: it carries one question and its answer at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import cast

from edgeserve.errors import BadRequest, NodeLost
from edgeserve.relay.answer_head import AnswerHead, read_answer
from edgeserve.relay.exchange import Reply
from edgeserve.relay.framing import UntilClosed
from edgeserve.relay.head import END
from edgeserve.relay.reply import JOINED, ClientReply
from edgeserve.relay.upstream import Origin

HEAD_BYTES = 65536
"""Longest head of an answer."""

HIGH_WATER = 262144
"""Bytes of an answer that may wait for whoever asked."""

See = Callable[[bytes], None]


class Link(asyncio.Protocol):
    """Sends a question, reads the head of its answer, passes the body on."""

    __slots__ = (
        "_answer", "_asked", "_awaited", "_early", "_loop", "_silent", "_stopped",
        "closed", "idle_since", "on_closed", "origin", "transport", "uses",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(
        self,
        origin: Origin,
        loop: asyncio.AbstractEventLoop,
        on_closed: Callable[[Link], None],
    ) -> None:
        self.origin = origin
        self.uses = 0
        self.idle_since = 0.0
        self.closed = False
        self.on_closed = on_closed
        self._loop = loop
        self._asked = ""
        self._early = b""  # of a head that is not yet whole
        self._awaited: asyncio.Future[RawAnswer] | None = None
        self._answer: RawAnswer | None = None
        self._silent = True
        self._stopped = False

    @property
    def stale(self) -> bool:
        """Whether a used connection was closed before it said anything.

        Then the server most likely closed it for idleness, and has seen no request.
        """
        return self.closed and self.uses > 1 and self._silent

    @property
    def reusable(self) -> bool:
        """Whether the exchange ended so that another may follow."""
        return (
            not self.closed
            and self._answer is not None
            and self._answer.clean
            and not self.transport.get_write_buffer_size()
        )

    def ask(self, method: str, head: bytes, body: bytes) -> asyncio.Future[RawAnswer]:
        """Send a question; the future becomes its answer, or NodeLost."""
        self.uses += 1
        self._asked = method
        self._answer = None
        self._early = b""
        self._silent = True
        self._awaited = future = self._loop.create_future()
        if self.closed:
            future.set_exception(self._lost("hung up"))
        elif len(body) <= JOINED:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)
        return future

    def rest(self, now: float) -> None:
        """Go idle."""
        self.idle_since = now
        self._awaited = self._answer = None
        self.go()

    def abort(self) -> None:
        """Close at once, which is how a server learns that nobody listens."""
        self._answer = None
        if not self.closed:
            self.transport.abort()

    def stop(self) -> None:
        """Read no more for now."""
        if not self._stopped and not self.closed:
            self._stopped = True
            self.transport.pause_reading()

    def go(self) -> None:
        """Read on."""
        if self._stopped and not self.closed:
            self._stopped = False
            self.transport.resume_reading()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the transport."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none

    def data_received(self, data: bytes) -> None:
        """Take bytes from the server."""
        if self._answer is not None:
            self._answer.take(data)
        elif self._awaited is not None:
            self._silent = False
            self._take_head(self._early + data)
        else:
            self.transport.abort()  # nobody asked anything

    def eof_received(self) -> None:
        """Take the end of what the server sends, and close."""
        if self._answer is not None:
            self._answer.ended()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let whoever waits know."""
        self.closed = True
        self.on_closed(self)
        why = str(exc) if exc else "hung up"
        if self._answer is not None:
            self._answer.lost(self._lost(f"broke off: {why}"))
        elif self._awaited is not None and not self._awaited.done():
            self._awaited.set_exception(self._lost(f"did not answer: {why}"))

    # Reading a head

    def _take_head(self, data: bytes) -> None:
        self._early = data
        end = data.find(END)
        if end < 0:
            if len(data) > HEAD_BYTES:
                self._break("the head of the answer is too long")
            return
        try:
            head = read_answer(data[:end], self._asked)
        except BadRequest as error:
            self._break(str(error))
            return
        rest = data[end + len(END) :]
        if head.status < 200:  # an interim answer; the real one follows
            self._early = b""
            if rest:
                self._take_head(rest)
            return
        self._begin(head, rest)

    def _begin(self, head: AnswerHead, rest: bytes) -> None:
        awaited = self._awaited
        if awaited is None or awaited.done():
            self.transport.abort()  # whoever asked has gone
            return
        self._answer = answer = RawAnswer(self, head, self._loop)
        if rest:
            answer.take(rest)
        awaited.set_result(answer)

    def _break(self, why: str) -> None:
        if self._awaited is not None and not self._awaited.done():
            self._awaited.set_exception(self._lost(f"broke the protocol: {why}"))
        self.transport.abort()

    def _lost(self, why: str) -> NodeLost:
        return NodeLost(f"{self.origin.url} {why}")


class RawAnswer:
    """See `Answer`. Holds what came and was not asked for yet."""

    __slots__ = (
        "_error", "_framing", "_gathers", "_held", "_keeps", "_link", "_loop",
        "_pieces", "_see", "_sink", "_wakes", "headers", "status",
    )  # fmt: skip

    def __init__(
        self, link: Link, head: AnswerHead, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.status = head.status
        self.headers: Mapping[str, str] = head.headers
        self._framing = head.framing
        self._keeps = head.keeps
        self._link = link
        self._loop = loop
        self._pieces: list[bytes] = []
        self._held = 0  # bytes in `_pieces`
        self._gathers = False  # whether someone wants the whole and no less
        self._wakes: asyncio.Future[None] | None = None
        self._sink: ClientReply | None = None
        self._see: See | None = None
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
            self._fail(NodeLost(f"{self._link.origin.url} broke the protocol: {error}"))
        except Exception as error:  # noqa: BLE001 - `see` or the reply failed: raised where it is pumped
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
        self._link.go()

    def _pass_on(self, piece: bytes) -> None:
        sink, see = self._sink, self._see
        if sink is not None and see is not None:
            see(piece)
            sink.put(piece)
            if sink.wire.paused:
                self._link.stop()
            return
        self._pieces.append(piece)
        self._held += len(piece)
        if not self._gathers:
            self._wake()
            if self._held > HIGH_WATER:
                self._link.stop()

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
        self._link.go()
        while not self._framing.done:
            await self._more()
        return self._taken()

    async def chunk(self) -> bytes:
        """See `Answer.chunk`."""
        while not self._pieces and not self._framing.done:
            await self._more()
        return self._taken()

    async def pump(self, reply: Reply, see: See) -> None:
        """See `Answer.pump`."""
        if isinstance(reply, ClientReply):
            await self._relay(reply, see)
            return
        while piece := await self.chunk():
            see(piece)
            await reply.write(piece)

    async def _relay(self, reply: ClientReply, see: See) -> None:
        """Let each piece go straight from the one connection to the other."""
        wire = reply.wire
        self._sink, self._see = reply, see
        wire.feeder = self
        try:
            if early := self._taken():
                self._pass_on(early)
            while not self._framing.done and self._error is None:
                await self._more()
        finally:
            self._sink = self._see = None
            wire.feeder = None
        if self._error is not None:
            raise self._error
        if wire.paused:
            await wire.drained()

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        self._wakes = self._loop.create_future()
        await self._wakes
        if self._error is not None and not self._pieces:
            raise self._error

    def _taken(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        self._held = 0
        self._link.go()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
