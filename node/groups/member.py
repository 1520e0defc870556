"""Member: a worker of our group, as its head holds it.

Its node tells each second how the worker is, and is told that we are there. llama.cpp
itself has no time limits: without this, a machine that froze or lost its network would
stop the group for ever.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial

from edgeserve.config.settings import LOOPBACK
from edgeserve.errors import EdgeserveError, NodeLost
from edgeserve.http.client.raw import Connecting, raw_stream
from edgeserve.http.raw import RawStream
from edgeserve.http.sockets import notice_silence
from edgeserve.http.types import Origin, origins_of
from edgeserve.orders.groups import (
    RPC,
    WORKERS,
    GroupWorker,
    Heartbeat,
    HostedWorker,
    HostWorker,
    MemberState,
    OpenTunnel,
)
from edgeserve.runtime.background import Tasks, declared
from edgeserve.runtime.tasks import first_of
from edgeserve.security.account import same_account
from edgeserve.wire import decode, encode
from node.groups.worker import BEAT_SECONDS, LINE, SILENT_SECONDS

MEMBER = declared("group member", "never")
TUNNEL = declared("group tunnel", "never")

ASK_SECONDS = 10.0
FLUSH_SECONDS = 1.0
"""Most time for the last bytes of one side, once the other has ended."""


class Member:
    """One worker of a group, for one start of its engine."""

    def __init__(
        self,
        worker: GroupWorker,
        order: HostWorker,
        nodes: Connecting,
        changed: Callable[[], None],
    ) -> None:
        self.worker = worker
        self.told = HostedWorker()
        self.lost = ""
        """Why it was lost, with its name."""
        self.loaded = False
        self._order = order
        self._nodes = nodes
        self._changed = changed
        self._origin: Origin | None = None
        self._tunnels = set[RawStream]()
        self._server: asyncio.Server | None = None
        self._port = 0

    @property
    def state(self) -> MemberState:
        """How it is."""
        return "lost" if self.lost else self.told.state

    @property
    def endpoint(self) -> str:
        """Where llama.cpp finds it, on this machine."""
        return f"{LOOPBACK}:{self._port}"

    def start(self, tasks: Tasks) -> None:
        """Have the node be our worker, until one of us is lost."""
        held = tasks.start(MEMBER, self._hold, self.worker.name).task
        held.add_done_callback(lambda _: self._lose("it is held no longer"))

    async def _hold(self) -> None:
        try:
            why = await self._held()
        except (EdgeserveError, OSError, TimeoutError) as error:
            why = str(error) or f"no answer within {ASK_SECONDS:g} s"
        self._lose(why)

    async def _held(self) -> str:
        errors = list[str]()
        for origin in origins_of(self.worker.node, self.worker.urls):
            self._origin = origin
            body = encode(self._order)
            stream = raw_stream(self._nodes, origin, WORKERS, body)
            try:
                async with asyncio.timeout(ASK_SECONDS) as limit, stream as held:
                    limit.reschedule(None)
                    notice_silence(held.transport)
                    return await first_of(self._hear(held), self._beat(held))
            except (EdgeserveError, OSError, TimeoutError) as error:
                errors.append(str(error) or f"no answer within {ASK_SECONDS:g} s")
        return "; ".join(dict.fromkeys(errors)) or "no address of it is known"

    async def _hear(self, stream: RawStream) -> str:
        """Hear how it is; returns why that ended."""
        try:
            while True:
                async with asyncio.timeout(SILENT_SECONDS):
                    line = await stream.until(b"\n", LINE)
                told, before = decode(line, HostedWorker), self.told
                if told.state == "lost":
                    return told.why
                self.told = told
                if told != before:
                    self._changed()
        except TimeoutError:
            return f"it was silent for {SILENT_SECONDS:g} s"
        except ConnectionError:
            return "its node hung up"

    async def _beat(self, stream: RawStream) -> str:
        """Tell it each second that we are there."""
        try:
            while True:
                await stream.send(encode(Heartbeat(loaded=self.loaded)) + b"\n")
                await asyncio.sleep(BEAT_SECONDS)
        except ConnectionError:
            return "its node hung up"

    def _lose(self, why: str) -> None:
        self.lost = self.lost or f"{self.worker.name}: {why}"
        for each in tuple(self._tunnels):
            each.abort()
        self._changed()

    @asynccontextmanager
    async def listening(self, tasks: Tasks) -> AsyncGenerator[None]:
        """Listen on loopback for the engine, which connects while it starts."""
        loop = asyncio.get_running_loop()

        def begin(stream: RawStream) -> None:
            work = partial(self._tunnel, stream)
            started = tasks.start(TUNNEL, work, self.worker.name)
            started.task.add_done_callback(lambda _: stream.abort())

        self._server = await loop.create_server(
            lambda: _Entering(begin), LOOPBACK, 0, backlog=1
        )
        self._port = int(self._server.sockets[0].getsockname()[1])
        try:
            yield
        finally:
            self._server.close()

    def shut(self) -> None:
        """Let nothing connect any longer."""
        assert self._server is not None  # noqa: S101 - it was opened
        self._server.close()

    async def _tunnel(self, inner: RawStream) -> None:
        """Lead one connection of the engine to its worker."""
        origin = self._origin
        assert origin is not None  # noqa: S101 - it was held before
        body = encode(OpenTunnel(key=self.told.key))
        try:
            if not await asyncio.to_thread(_is_ours, inner.transport):
                return
            async with raw_stream(self._nodes, origin, RPC, body) as outer:
                notice_silence(outer.transport)
                self._tunnels.add(outer)
                outer.join(inner)
                await first_of(outer.over(), inner.over())
                async with asyncio.timeout(FLUSH_SECONDS):
                    await outer.over()
                    await inner.over()
                self._tunnels.discard(outer)
        except TimeoutError:
            pass
        except (NodeLost, OSError) as error:
            self._lose(f"no tunnel: {error}")


class _Entering(RawStream):
    """A connection to a port of ours; `begin` is called once it is there."""

    def __init__(self, begin: Callable[[RawStream], None]) -> None:
        super().__init__()
        self._begin = begin

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        super().connection_made(transport)
        self._begin(self)


def _is_ours(transport: asyncio.Transport) -> bool:
    """Whether a program of this node's own account has connected, as far as is known.

    RPC has no keys, and other accounts of this machine can reach its loopback, too.
    """
    if not sys.platform.startswith("linux"):
        return True
    peer, own = (transport.get_extra_info(each) for each in ("peername", "sockname"))
    return bool(peer and own) and same_account(peer[:2], own[:2])
