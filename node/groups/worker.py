"""Worker: one process of `ggml-rpc-server`, for one head on another node.

A worker lives as long as its head holds the connection that asked for it, and as long
as both hear from each other. So none is left behind, whatever happens to the head.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgeserve.config.settings import LOOPBACK
from edgeserve.errors import EdgeserveError, in_words
from edgeserve.http.raw import RawStream
from edgeserve.models.memory import size
from edgeserve.orders.groups import (
    Heartbeat,
    HostedWorker,
    HostWorker,
    understand,
)
from edgeserve.runtime.tasks import first_of, in_thread
from edgeserve.wire import decode, encode
from node.engines.base import Command
from node.engines.output import TELLING, ending
from node.engines.process import Process, free_port, running
from node.groups.cache import WeightCache
from node.groups.protocol import Hello, hello

BEAT_SECONDS = 1.0
SILENT_SECONDS = 6.0
"""After so long without a word, the other side counts as lost."""

LINE = 65536
START_SECONDS = 120.0
"""A GPU's driver, and a slow disk, may take long."""

PAUSE = 0.05
MARGIN = 2**29
GROWTH = 0.25
"""What a worker may take beyond what it was promised: this share, or 512 MiB."""


Room = Callable[[], Awaitable[None]]
"""Waits until what was in the way has left the memory."""


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What a worker runs with: llama.cpp's program, its threads, its cache."""

    program: Path
    threads: int
    cache: WeightCache
    state_dir: Path

    def command(self, port: int, *, cached: bool) -> Command:
        """Return the command of a worker on a port of loopback."""
        where = ("--host", LOOPBACK, "--port", str(port))
        argv = (str(self.program), *where, "--threads", str(self.threads))
        more = ("--cache",) if cached else ()
        return Command((*argv, *more), {"LLAMA_CACHE": str(self.cache.folder)})


class Worker:
    """One worker, for one head; it starts once the engines `leaving` have left.

    `gpu`: its memory is that of GPUs.
    """

    def __init__(
        self, order: HostWorker, *, gpu: bool, leaving: tuple[str, ...] = ()
    ) -> None:
        self.order, self.gpu, self.leaving = order, gpu, leaving
        self.key = secrets.token_hex(16)
        self.port = 0
        self.held = 0
        """Bytes of main memory that it has taken so far."""
        self.tunnels = set[RawStream]()
        self.state = HostedWorker(key=self.key)
        self._loaded = False
        self._changed = asyncio.Event()

    async def serve(self, stream: RawStream, tools: Tools, room: Room) -> str:
        """Run until its head or its process is lost; returns why. It is gone then."""
        try:
            why = await first_of(
                self._run(tools, room), self._tell(stream), self._listen(stream)
            )
        finally:
            self._cut()
        lost = msgspec.structs.replace(self.state, state="lost", why=why)
        stream.write(encode(lost) + b"\n")
        return why

    async def _run(self, tools: Tools, room: Room) -> str:
        try:
            await room()
            cached = await in_thread(tools.cache.prepare, self.order.memory)
            self.port = free_port()
            command = tools.command(self.port, cached=cached)
            async with running(command, tools.state_dir) as process:
                return await first_of(_end(process), self._watch(tools, process))
        except OSError as error:
            return f"cannot be started: {in_words(error)}"
        except EdgeserveError as error:
            return str(error)

    async def _watch(self, tools: Tools, process: Process) -> str:
        """Wait until it listens, then look at it each second; returns what is wrong."""
        try:
            async with asyncio.timeout(START_SECONDS):
                found = await self._ready()
        except TimeoutError:
            return f"did not listen within {START_SECONDS:g} s"
        if not understand(self.order.rpc, found.version):
            return f"its RPC is {found.version}, and its head's {self.order.rpc}"
        self.state = msgspec.structs.replace(
            self.state, state="up", devices=max(1, found.devices)
        )
        self._changed.set()
        kept = False
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            if wrong := self._look(process):
                process.kill()
                return wrong
            if self._loaded and not kept:
                await in_thread(tools.cache.keep)
                kept = True

    def _look(self, process: Process) -> str:
        """Return what is wrong with its process, "" for nothing."""
        look, memory = process.look(), self.order.memory
        if look is None:
            return ""
        self.held = 0 if self.gpu else look.own
        most = memory + max(MARGIN, int(memory * GROWTH))
        if look.stopped:
            return "its process was stopped"
        if self.held > most:
            return f"it took {size(self.held)} of memory; its limit is {size(most)}"
        return ""

    async def _ready(self) -> Hello:
        while True:
            try:
                return await hello(self.port)
            except OSError:
                await asyncio.sleep(PAUSE)

    async def _tell(self, stream: RawStream) -> str:
        """Tell its head each second how it is; returns why that ended."""
        try:
            while True:
                self._changed.clear()
                await stream.send(encode(self.state) + b"\n")
                with suppress(TimeoutError):
                    async with asyncio.timeout(BEAT_SECONDS):
                        await self._changed.wait()
        except ConnectionError:
            return "its head hung up"

    async def _listen(self, stream: RawStream) -> str:
        """Listen to its head; returns why that ended."""
        try:
            while True:
                async with asyncio.timeout(SILENT_SECONDS):
                    line = await stream.until(b"\n", LINE)
                self._loaded |= decode(line, Heartbeat).loaded
        except TimeoutError:
            return f"its head was silent for {SILENT_SECONDS:g} s"
        except (ConnectionError, EdgeserveError):
            return "its head hung up"

    def leave(self) -> None:
        """Tell its head that this node shuts down."""
        self.state = msgspec.structs.replace(self.state, leaving=True)
        self._changed.set()

    def _cut(self) -> None:
        """End its tunnels."""
        for each in tuple(self.tunnels):
            each.abort()


async def _end(process: Process) -> str:
    status = await process.ended()
    said = filter(TELLING.search, process.output.lines)
    return f"its process was {ending(status, said)}"
