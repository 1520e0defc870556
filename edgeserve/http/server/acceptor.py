"""TLS acceptor: accepts the connections of a TLS port, and bounds their handshakes.

asyncio's own server starts a handshake for each connection and counts none of them, so
that half-open ones would use up memory and open files. Here a connection that is not
through with its handshake is counted, has a limited time, and is closed where too many
wait. One that speaks plain HTTP is told so.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from edgeserve.errors import BadRequest, in_words
from edgeserve.http.framing import TLS_HANDSHAKE
from edgeserve.http.heads import status_line, written
from edgeserve.http.server.limits import Limits
from edgeserve.http.sockets import is_shortage, open_files
from edgeserve.http.types import Origin
from edgeserve.openai import path_in, rendered
from edgeserve.runtime.background import Tasks, background, declared, guarded
from edgeserve.runtime.log import warn_once

log = logging.getLogger(__name__)

ACCEPT = declared("accept TLS connections", "timer")
HANDSHAKE = declared("TLS handshake", "never")

AT_ONCE = 64
"""Connections accepted in a row before others are served."""

RETRY_SECONDS = 0.25
"""Pause before accepting again once no file could be opened."""

READ_BYTES = 65536


@dataclass(eq=False)
class Newcomer:
    """A connection before the end of its handshake."""

    sock: socket.socket
    peer: str
    end: Callable[[], None] = lambda: None
    """Ends its handshake and closes it."""


class Newcomers:
    """Counts newcomers, of each address and in all. Pure."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._number = 0
        self._waiting: dict[str, dict[Newcomer, None]] = {}  # in order of arrival

    def __len__(self) -> int:
        """Count all newcomers."""
        return self._number

    def enter(self, newcomer: Newcomer) -> Newcomer | None:
        """Count it; return the one to close for it, if there are too many."""
        surplus = self.longest() if self._number >= self._most else None
        self._waiting.setdefault(newcomer.peer, {})[newcomer] = None
        self._number += 1
        return surplus

    def leave(self, newcomer: Newcomer) -> bool:
        """Stop counting it; returns False the second time."""
        here = self._waiting.get(newcomer.peer, {})
        if newcomer not in here:
            return False
        del here[newcomer]
        self._number -= 1
        if not here:
            del self._waiting[newcomer.peer]
        return True

    def longest(self) -> Newcomer | None:
        """Return the one that waits longest, of the address that has most.

        A flood from one address so displaces itself, not the clients of others.
        """
        busiest = max(self._waiting.values(), key=len, default={})
        return next(iter(busiest), None)


class Acceptor:
    """Accepts the connections of one listening socket; see `accepting`."""

    def __init__(
        self,
        sock: socket.socket,
        factory: Callable[[], asyncio.Protocol],
        context: Callable[[], ssl.SSLContext],
        limits: Limits,
        tasks: Tasks,
        advice: str = "",
    ) -> None:
        self.on_settled: Callable[[], None] = lambda: None
        self._sock = sock
        self._factory = factory
        self._context = context
        self._limits = limits
        self._tasks = tasks
        self._advice = advice
        self._loop = asyncio.get_running_loop()
        self._newcomers = Newcomers(
            max(1, min(limits.handshakes, open_files() // 8))  # within the reserve
        )
        self._retry: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def arriving(self) -> int:
        """Connections that are not through with their handshake."""
        return len(self._newcomers)

    def begin(self) -> None:
        """Accept connections from now on."""
        self._retry = None
        self._loop.add_reader(self._sock, guarded, ACCEPT, self._accept)

    def close(self) -> None:
        """Accept no more; handshakes that have begun go on. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._pause()
        self._sock.close()

    def _pause(self) -> None:
        self._loop.remove_reader(self._sock)
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._wait(error)
                return
            sock.setblocking(False)
            peer = str(address[0]).removeprefix("::ffff:")
            self._welcome(Newcomer(sock, peer))

    def _wait(self, error: OSError) -> None:
        """Try again later; a newcomer that waits long may hold the missing file."""
        warn_once(log, f"new connections wait: {in_words(error)}")
        if is_shortage(error):
            self._end(self._newcomers.longest())
        self._pause()
        self._retry = self._loop.call_later(RETRY_SECONDS, self.begin)

    def _welcome(self, newcomer: Newcomer) -> None:
        self._end(self._newcomers.enter(newcomer))
        started = self._tasks.start(HANDSHAKE, lambda: self._greet(newcomer))
        newcomer.end = started.cancel
        # Also where the task is cancelled before it begins.
        started.task.add_done_callback(lambda _: self._settle(newcomer))

    def _end(self, newcomer: Newcomer | None) -> None:
        if newcomer is not None:
            self._newcomers.leave(newcomer)  # at once: many may come before it ends
            newcomer.end()

    def _settle(self, newcomer: Newcomer) -> None:
        self._newcomers.leave(newcomer)
        newcomer.sock.close()  # does nothing where a transport has it
        self.on_settled()

    async def _greet(self, newcomer: Newcomer) -> None:
        """See the handshake through, or answer plain HTTP."""
        with suppress(OSError):  # it took too long, broke off, or failed
            async with asyncio.timeout(self._limits.head_seconds):
                first = await self._first_byte(newcomer.sock)
                if first == TLS_HANDSHAKE:
                    await self._shake_hands(newcomer)
                elif first:
                    await self._refuse(newcomer.sock)

    async def _first_byte(self, sock: socket.socket) -> bytes:
        """Return it, unread; b"" where the connection is closed before."""
        while True:
            try:
                return sock.recv(1, socket.MSG_PEEK)
            except (BlockingIOError, InterruptedError):
                await self._readable(sock)

    async def _readable(self, sock: socket.socket) -> None:
        ready = asyncio.Event()
        self._loop.add_reader(sock, ready.set)
        try:
            await ready.wait()
        finally:
            self._loop.remove_reader(sock)

    async def _shake_hands(self, newcomer: Newcomer) -> None:
        context = self._context()
        # A copy of the object, not of the file: the transport closes it on every path.
        sock = socket.socket(fileno=newcomer.sock.detach())
        await self._loop.connect_accepted_socket(
            self._factory,
            sock,
            ssl=context,
            ssl_handshake_timeout=self._limits.head_seconds,
        )

    async def _refuse(self, sock: socket.socket) -> None:
        """Answer plain HTTP with a sentence.

        Not with a redirect: a client that follows those would go on to send its key in
        plain, in every first request.
        """
        data = await self._loop.sock_recv(sock, READ_BYTES)
        answer = plain_answer(data, sock.getsockname(), self._advice)
        await self._loop.sock_sendall(sock, answer)
        sock.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(self._limits.linger_seconds):
            # Closing while it still sends would reset it, and lose the answer.
            while await self._loop.sock_recv(sock, READ_BYTES):
                pass


def plain_answer(data: bytes, address: tuple[str, int], advice: str = "") -> bytes:
    """Return the answer to the plain request `data` at `address`. Pure."""
    url = Origin(address[0].removeprefix("::ffff:"), address[1], tls=True).url
    error = BadRequest(f"this port speaks TLS only; {advice or f'use {url}'}")
    body = rendered(error, path_in(data))
    lines = [
        status_line(error.status),
        "content-type: application/json",
        f"content-length: {len(body)}",
        "connection: close",
    ]
    return written(lines) + body


@asynccontextmanager
async def accepting(
    sock: socket.socket,
    factory: Callable[[], asyncio.Protocol],
    context: Callable[[], ssl.SSLContext],
    limits: Limits,
    advice: str = "",
) -> AsyncGenerator[Acceptor]:
    """Accept the TLS connections of `sock` until the block ends.

    `factory` makes the protocol of each one that completes its handshake, within
    `limits.head_seconds`. `context` is asked for each anew.
    `advice` is what plain HTTP is told to do; to use https, if it is empty.
    """
    sock.setblocking(False)
    async with background() as tasks:
        acceptor = Acceptor(sock, factory, context, limits, tasks, advice)
        acceptor.begin()
        try:
            yield acceptor
        finally:
            acceptor.close()
