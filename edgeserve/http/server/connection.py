"""Server connection: reads one client's requests and answers them in order.

A client that closes its sending half counts as gone, as it does for llama.cpp and
nginx: nothing else tells a client that left from one that waits.
"""

from __future__ import annotations

import asyncio
import logging
from typing import cast

from edgeserve.errors import EdgeserveError, HeadTooLarge, TooSlow
from edgeserve.http.framing import TLS_ALERT, TLS_HANDSHAKE
from edgeserve.http.heads import ANY, END, check_beginning, read_request, routed
from edgeserve.http.server.body import RequestBody
from edgeserve.http.server.context import PortContext
from edgeserve.http.server.limits import OWN_BODIES, Stall
from edgeserve.http.server.response import Feeder, ServerResponse
from edgeserve.http.sockets import cut, peer_of
from edgeserve.http.types import Request
from edgeserve.openai import path_in, rendered
from edgeserve.runtime.clock import NEVER

log = logging.getLogger(__name__)

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection(asyncio.Protocol):
    """Reads requests from one client and writes their answers, in order."""

    __slots__ = (
        "_ahead", "_deadline", "_drain", "_held", "_incoming", "_lingers", "_loop",
        "_memory", "_ours", "_port", "_stall", "feeder", "heard", "lost", "paused",
        "peer", "task", "transport",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, port: PortContext, loop: asyncio.AbstractEventLoop) -> None:
        self._port = port
        self._memory = port.memory
        self._loop = loop
        self.peer = ""
        self.task: asyncio.Task[None] | None = None
        self.feeder: Feeder | None = None
        self.lost = self.paused = self.heard = False
        self._ahead = b""  # read, not yet parsed
        self._incoming: RequestBody | None = None
        self._ours = True  # whether the relay answers it, or aiohttp
        self._held = 0  # bytes of a body, as `_memory` counts them
        self._drain: asyncio.Future[None] | None = None
        self._deadline = NEVER
        self._lingers = False
        self._stall = Stall()

    @property
    def keeps(self) -> bool:
        """Whether another request may follow this one."""
        return not self._port.leaving

    @property
    def idle_until(self) -> float:
        """See `CountedConnection.idle_until`."""
        busy = self.task is not None or self._incoming is not None
        return NEVER if busy else self._deadline

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count a new connection, or refuse it."""
        self.transport = cast(asyncio.Transport, transport)  # by uvloop: no subclass
        self.transport.set_write_buffer_limits(high=self._port.limits.high_water)
        self.peer = peer_of(transport)
        self._deadline = self._loop.time() + self._port.limits.idle_seconds
        try:
            self._port.arrived(self)
        except EdgeserveError as error:
            self._refuse(error)

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client."""
        self.heard = True
        if self._lingers:
            return
        if self.task is not None:
            self._read_ahead(data)
            return
        self._read(data)

    def eof_received(self) -> None:
        """Take the client's departure; bytes that wait for it are still sent."""
        if self.task is not None:
            self._depart()
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """End all work for this client."""
        self._port.departed(self)
        self._depart()

    def _depart(self) -> None:
        if self.lost:
            return
        self.lost = True
        if self.task is not None:
            self.task.cancel()
        else:
            self._free_body()
        if self._drain is not None and not self._drain.done():
            self._drain.set_exception(ConnectionResetError("the client has gone"))

    def pause_writing(self) -> None:
        """Note that the client's buffer is full."""
        self.paused = True

    def resume_writing(self) -> None:
        """Continue what waits for the client's buffer."""
        self.paused = False
        if self._drain is not None and not self._drain.done():
            self._drain.set_result(None)
        if self.feeder is not None:
            self.feeder.resume()

    # What an answer calls

    async def drained(self) -> None:
        """See `ClientConnection.drained`."""
        if self.lost:
            raise ConnectionResetError("the client has gone")
        if self.paused:
            self._drain = self._loop.create_future()
            try:
                await self._drain
            finally:
                self._drain = None  # its error would be a reference cycle

    # What the clock and the port call

    def tick(self, now: float) -> None:
        """Enforce the time limits."""
        unsent = self.transport.get_write_buffer_size()
        if unsent and (self.paused or self.task is None):
            if self._stall.lasts(unsent, now, self._port.limits.stall_seconds):
                self.transport.abort()
            return
        self._stall.end()
        if now >= self._deadline:
            self._expire()

    def retire(self) -> None:
        """Close now if nothing is being answered, else after the answer."""
        if self.task is None:
            self.transport.close()

    # Reading

    def _read(self, data: bytes) -> None:
        try:
            if self._incoming is None:
                data = self._read_head(data)
            if self._incoming is not None:
                self._read_body(self._incoming, data)
        except EdgeserveError as error:
            self._refuse(error, data)

    def _read_head(self, data: bytes) -> bytes:
        """Read up to the body; return what follows."""
        seen, data = max(0, len(self._ahead) - len(END)), self._ahead + data
        if data[:1] in b"\r\n":  # some clients end a body with an extra line
            seen, data = 0, data.lstrip(b"\r\n")
        if (end := data.find(END, seen) + len(END)) < len(END):
            self._await_head(data)
            return b""
        if end > self._port.limits.head_bytes:
            raise HeadTooLarge(self._port.limits.head_bytes)
        self._ahead = b""
        port = self._port
        head, self._ours = routed(read_request(data[:end]), port.handled)
        port.check_host(head.headers)
        limit = port.body_limit if self._ours else min(port.body_limit, OWN_BODIES)
        self._incoming = RequestBody(head, limit)
        more = head.length is None or head.length > len(data) - end
        if more and self._ours:
            port.admit(head.headers)  # before the client sends a refused body
        self._deadline = self._loop.time() + self._port.limits.body_seconds
        if end == len(data) and head.expects:
            self.transport.write(CONTINUE)
        return data[end:]

    def _await_head(self, data: bytes) -> None:
        """Keep the part of a head that has come, for a limited time."""
        limits = self._port.limits
        if len(data) > limits.head_bytes:
            raise HeadTooLarge(limits.head_bytes)
        if data:
            check_beginning(data)
        if data and not self._ahead:
            self._deadline = self._loop.time() + limits.head_seconds
        self._ahead = data

    def _read_body(self, incoming: RequestBody, data: bytes) -> None:
        before = incoming.size
        if incoming.feed(data):
            self._deadline = self._loop.time() + self._port.limits.body_seconds
        size = max(len(data), incoming.size - before)
        whole = incoming.framing.done
        answers = whole and self._ours
        (self._memory.begin if answers else self._memory.hold)(size)
        self._held += size
        if not whole:
            return
        self._incoming = None
        self._ahead = incoming.framing.excess
        self._deadline = NEVER
        if answers:
            reply = ServerResponse(self, incoming.head)
            request = incoming.request(self.peer)
            self.task = self._loop.create_task(self._answer(request, reply))
        else:
            self._ahead = b""  # aiohttp answers one request a connection
            self._port.hand_over(self, incoming.rendered())

    def _read_ahead(self, data: bytes) -> None:
        """Keep what a pipelining client sends during an answer."""
        self._ahead += data
        if len(self._ahead) > self._port.limits.head_bytes:
            self.transport.pause_reading()

    # Answering

    async def _answer(self, request: Request, reply: ServerResponse) -> None:
        try:
            await self._port.handler(request, reply)
            if not (reply.finished or self.lost):
                log.error("%s %s got no answer", request.method, request.path)
                left = EdgeserveError("the request got no answer")
                self._answer_error(reply, left, request.path)
        except EdgeserveError as error:
            self._answer_error(reply, error, request.path)
        except Exception as error:
            if not (self.lost and isinstance(error, ConnectionError)):
                log.exception("%s %s failed", request.method, request.path)
            broke = EdgeserveError("internal error; see the log")
            self._answer_error(reply, broke, request.path)
        finally:
            self.task = None
            self.feeder = None
            held, self._held = self._held, 0
            self._memory.end(held)
            self._answered(reply)

    def _free_body(self) -> None:
        if self._held:
            self._memory.let_go(self._held)
            self._held = 0

    def _answer_error(
        self, reply: ServerResponse, error: EdgeserveError, path: str
    ) -> None:
        """Answer with the error, if nothing is out yet; see `_answered` otherwise."""
        if not reply.started and not self.lost:
            reply.put_whole(error.status, error.headers(), rendered(error, path))

    def _answered(self, reply: ServerResponse) -> None:
        if self.lost:
            return
        if not reply.finished:
            cut(self.transport)  # a broken answer must not look complete
        elif not reply.keep:
            self._linger()
        else:
            self._next()

    def _next(self) -> None:
        """Wait for the next request, which may have come already."""
        self._deadline = self._loop.time() + self._port.limits.idle_seconds
        data, self._ahead = self._ahead, b""
        if len(data) > self._port.limits.head_bytes:
            self.transport.resume_reading()
        if data:
            self._read(data)

    # Leaving

    def _refuse(self, error: EdgeserveError, data: bytes = b"") -> None:
        """Answer with the error, and close: what follows cannot be parsed."""
        incoming, first = self._incoming, self._ahead + data
        self._incoming, self._ahead = None, b""
        self._free_body()
        if incoming is None and first[:1] == TLS_HANDSHAKE:
            self.transport.write(TLS_ALERT)
        else:
            path = incoming.head.path if incoming else path_in(first)
            reply = ServerResponse(self, ANY)
            reply.put_whole(error.status, error.headers(), rendered(error, path))
        self._linger()

    def _linger(self) -> None:
        """Close once the client has had time to read the answer.

        Closing while it still sends would reset the connection, and lose the answer.
        """
        self._lingers = True
        self._deadline = self._loop.time() + self._port.limits.linger_seconds
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _expire(self) -> None:
        if self._lingers:
            self.transport.abort()
        elif self._incoming is not None:
            self._refuse(TooSlow(self._port.limits.body_seconds))
        elif self._ahead:
            self._refuse(TooSlow(self._port.limits.head_seconds))
        else:
            self.transport.close()
