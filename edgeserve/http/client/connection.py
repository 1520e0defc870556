"""Upstream connection: one request and its response at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from edgeserve.errors import BadRequest, NodeLost, in_words
from edgeserve.http.client.answer import UpstreamResponse
from edgeserve.http.heads import END, JOINED, AnswerHead, read_answer
from edgeserve.http.types import Origin

HEAD_BYTES = 65536
"""Longest head of an answer."""


class UpstreamConnection(asyncio.Protocol):
    """Sends a request, reads the head of its answer, passes the body on."""

    __slots__ = (
        "_answer", "_answer_future", "_loop", "_method", "_partial", "_silent",
        "_stopped", "closed", "id", "idle_since", "on_closed", "origin", "transport",
        "uses",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(
        self,
        origin: Origin,
        loop: asyncio.AbstractEventLoop,
        on_closed: Callable[[UpstreamConnection], None],
    ) -> None:
        self.origin = origin
        self.id = ""
        self.uses = 0
        self.idle_since = 0.0
        self.closed = False
        self.on_closed = on_closed
        self._loop = loop
        self._method = ""
        self._partial = b""  # of a head that is not yet whole
        self._answer_future: asyncio.Future[UpstreamResponse] | None = None
        self._answer: UpstreamResponse | None = None
        self._silent = True
        self._stopped = False

    @property
    def stale(self) -> bool:
        """Whether a used connection was closed before any byte of an answer.

        Then the server most likely closed it as idle, and has not read the request.
        """
        return self.closed and self.uses > 1 and self._silent

    @property
    def reusable(self) -> bool:
        """Whether another request may follow on this connection."""
        return (
            not self.closed
            and self._answer is not None
            and self._answer.clean
            and not self.transport.get_write_buffer_size()
        )

    def ask(
        self, method: str, head: bytes, body: bytes
    ) -> asyncio.Future[UpstreamResponse]:
        """Send a request; the future becomes its answer, or raises NodeLost."""
        self.uses += 1
        self._method = method
        self._answer = None
        self._partial = b""
        self._silent = True
        self._answer_future = future = self._loop.create_future()
        if self.closed:
            future.set_exception(self._lost("hung up"))
        elif len(body) <= JOINED:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)
        return future

    def rest(self, now: float) -> None:
        """Become idle."""
        self.idle_since = now
        self._answer_future = self._answer = None
        self.go()

    def abort(self) -> None:
        """Close at once; the server stops working on the request."""
        self._answer = self._answer_future = (
            None  # an error kept here would not be freed
        )
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
        self.transport = cast(asyncio.Transport, transport)  # by uvloop: no subclass

    def data_received(self, data: bytes) -> None:
        """Take bytes from the server."""
        if self._answer is not None:
            self._answer.take(data)
        elif self._answer_future is not None:
            self._silent = False
            self._take_head(self._partial + data)
        else:
            self.transport.abort()  # an answer without a request

    def eof_received(self) -> None:
        """Take the end of what the server sends, and close."""
        if self._answer is not None:
            self._answer.ended()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request in progress, if there is one."""
        self.closed = True
        self.on_closed(self)
        why = in_words(exc) if exc else "hung up"
        if self._answer is not None:
            self._answer.lost(self._lost(f"broke off: {why}"))
        elif self._answer_future is not None and not self._answer_future.done():
            self._answer_future.set_exception(self._lost(f"did not answer: {why}"))

    # Reading a head

    def _take_head(self, data: bytes) -> None:
        self._partial = data
        end = data.find(END)
        if end < 0:
            if len(data) > HEAD_BYTES:
                self._break("the head of the answer is too long")
            return
        try:
            head = read_answer(data[:end], self._method)
        except BadRequest as error:
            self._break(str(error))
            return
        rest = data[end + len(END) :]
        if head.status < 200:  # an interim answer; the real one follows
            self._partial = b""
            if rest:
                self._take_head(rest)
            return
        self._begin(head, rest)

    def _begin(self, head: AnswerHead, rest: bytes) -> None:
        future = self._answer_future
        if future is None or future.done():
            self.transport.abort()  # the request was cancelled
            return
        self._answer = answer = UpstreamResponse(self, head, self._loop)
        if rest:
            answer.take(rest)
        future.set_result(answer)

    def _break(self, why: str) -> None:
        if self._answer_future is not None and not self._answer_future.done():
            self._answer_future.set_exception(self._lost(f"broke the protocol: {why}"))
        self.transport.abort()

    def _lost(self, why: str) -> NodeLost:
        return NodeLost(f"{self.origin.url} {why}")
