"""Handover: pass the listening port to the next balancer process, and drain.

The old process sends the open socket itself, so that no connection is refused: either
process accepts what waits in the backlog. The old process goes on until the new one
reports that it serves; a new process that fails before that changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from balancer.state import InFlight
from edgeserve.errors import SettingsError, in_words
from edgeserve.http import Handoff
from edgeserve.runtime.background import background, declared
from edgeserve.runtime.tasks import first

log = logging.getLogger(__name__)

LENGTH = struct.Struct("!Q")
READY = b"R"

TAKEOVER = declared("takeover", "on-failure")

ANSWER_SECONDS = 10.0
"""How long the old process may take to send its socket and what it learned."""

READY_SECONDS = 120.0
"""How long the new process may take to know the fleet and to serve."""


def handover_socket(state_dir: Path, port: int) -> Path:
    """Return the path of the socket at which the balancer on `port` hands over."""
    return state_dir / f"balancer-{port}.sock"


@asynccontextmanager
async def offering(
    path: Path,
    listening: socket.socket,
    learned: Callable[[], bytes],
    taken: asyncio.Event,
) -> AsyncGenerator[None]:
    """Let another process take over while the block runs; `taken` is set once one has.

    The permissions of folder and socket decide which processes may. Where the folder
    does not allow a socket, a warning says so.
    """
    try:
        server = _listening_at(path)
    except OSError as error:
        why = in_words(error)
        log.warning("--takeover will not work: cannot listen on %s: %s", path, why)
        yield
        return
    with server:
        try:
            async with background() as tasks:
                tasks.start(
                    TAKEOVER,
                    lambda: _offer_until_taken(server, listening, learned, taken),
                )
                yield
        finally:
            if not taken.is_set():
                path.unlink(missing_ok=True)  # noqa: ASYNC240 - one name, on leaving


def _listening_at(path: Path) -> socket.socket:
    with ExitStack() as on_error:
        server = on_error.enter_context(socket.socket(socket.AF_UNIX))
        server.setblocking(False)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.unlink(missing_ok=True)
        server.bind(str(path))
        path.chmod(0o600)
        server.listen(1)
        on_error.pop_all()
    return server


async def _offer_until_taken(
    server: socket.socket,
    listening: socket.socket,
    learned: Callable[[], bytes],
    taken: asyncio.Event,
) -> None:
    loop = asyncio.get_running_loop()
    while not taken.is_set():
        peer, _ = await loop.sock_accept(server)
        with peer:
            try:
                await _offer(peer, listening, learned())
            except (OSError, EOFError) as error:
                log.warning("a takeover failed: %s", in_words(error))
            else:
                taken.set()


async def _offer(peer: socket.socket, listening: socket.socket, state: bytes) -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(ANSWER_SECONDS):
        socket.send_fds(peer, [LENGTH.pack(len(state))], [listening.fileno()])
        if state:
            await loop.sock_sendall(peer, state)
    async with asyncio.timeout(READY_SECONDS):
        if await loop.sock_recv(peer, 1) != READY:
            raise EOFError("the new process ended before it served")


@dataclass(frozen=True)
class Handover:
    """What the new process gets: the open port and the state of the old process."""

    listening: socket.socket
    learned: bytes
    _peer: socket.socket

    def serving(self) -> None:
        """Tell the old process to drain."""
        self._peer.sendall(READY)


@contextmanager
def inherited(path: Path) -> Generator[Handover]:
    """Take the port over from the process behind `path`.

    Blocks for a moment; meant for start-up. Leaving the block before `serving` is
    called lets the old process go on. Raises SettingsError where no process answers.
    """
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(ANSWER_SECONDS)
        try:
            peer.connect(str(path))
            listening, length = _received(peer)
            with peer.makefile("rb") as stream:
                learned = stream.read(length)
            if len(learned) < length:
                raise EOFError("it hung up")
        except (OSError, EOFError) as error:
            raise SettingsError(
                f"no balancer to take over from at {path}: {in_words(error)};"
                " start without --takeover"
            ) from error
        yield Handover(listening, learned, peer)


def _received(peer: socket.socket) -> tuple[socket.socket, int]:
    head, handles, _, _ = socket.recv_fds(peer, LENGTH.size, 1)
    if len(head) != LENGTH.size or not handles:
        raise EOFError("it hung up")
    listening = socket.socket(fileno=handles[0])
    listening.setblocking(False)
    return listening, int(LENGTH.unpack(head)[0])


async def clients_moved(
    leave: Handoff, in_flight: InFlight, stop: asyncio.Event, seconds: float
) -> None:
    """Wait until no client is connected; for idle connections at most `seconds`.

    Requests on connections that were open before are answered here, however long that
    takes.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    while not (stop.is_set() or leave.left.is_set()):
        now = asyncio.get_running_loop().time()
        if now > deadline and not in_flight.inside:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await first(stop, leave.left)
