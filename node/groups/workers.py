"""Workers: all that this node computes for heads on other nodes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from edgeserve.config.settings import LOOPBACK, NodeSettings
from edgeserve.errors import EdgeserveError, NodeLost, in_words
from edgeserve.http.raw import RawStream
from edgeserve.models.memory import MIB
from edgeserve.orders.groups import HostWorker, WorkerReport, understand
from node.engines.base import Engine
from node.engines.devices import Device
from node.groups.cache import WeightCache
from node.groups.protocol import NO_PROGRAM, program, version
from node.groups.worker import Room, Tools, Worker
from node.planning.prepare import Prepared

log = logging.getLogger(__name__)

MOST_TUNNELS = 4
"""Open tunnels of one worker; llama.cpp uses one after the other."""


class NoWorker(EdgeserveError):
    """The node cannot be a worker of this head."""

    status = 409
    code = "no_worker"


class UnknownWorker(EdgeserveError):
    """No worker has that key now."""

    status = 404
    code = "worker_not_found"

    def __init__(self) -> None:
        super().__init__("this node has no such worker now; its head has to ask again")


class Workers:
    """The workers of this node. `changed` is called when there are others."""

    def __init__(self, settings: NodeSettings, changed: Callable[[], None]) -> None:
        self.rpc = ""
        """The version of RPC that this node speaks; "" for none."""
        self._settings = settings
        self._changed = changed
        self._program: Path | None = None
        self._workers: list[Worker] = []
        self._empty = asyncio.Event()
        self._empty.set()
        self._cache = WeightCache(settings.state_dir / "engines" / "weights")

    async def learn(self, engine: Engine | None) -> None:
        """See which RPC comes with the engine of this node."""
        found = program(engine)
        if found != self._program:
            self._program = found
            self.rpc = await asyncio.to_thread(version, found) if found else ""
            self._changed()

    @property
    def reports(self) -> tuple[WorkerReport, ...]:
        """What is computed here for others."""
        return tuple(
            WorkerReport(
                head=each.order.head,
                variant=each.order.variant,
                memory=each.order.memory,
            )
            for each in self._workers
        )

    @property
    def promised(self) -> int:
        """Bytes of main memory that workers were promised and have not taken yet."""
        return sum(
            max(0, each.order.memory - each.held)
            for each in self._workers
            if not each.gpu
        )

    def within(self, settings: NodeSettings) -> NodeSettings:
        """Return the settings with what they leave for engines beside workers."""
        taken = sum(each.order.memory for each in self._workers if not each.gpu)
        if not settings.memory_mib or not taken:
            return settings
        return replace(settings, memory_mib=max(1, settings.memory_mib - taken // MIB))

    def beside(self, found: Prepared) -> Prepared:
        """Return what was found, with the memory of GPUs that workers leave."""
        return replace(found, devices=self._left(found.devices))

    def _left(self, devices: tuple[Device, ...]) -> tuple[Device, ...]:
        taken = sum(each.order.memory for each in self._workers if each.gpu)
        left = list[Device]()
        for each in devices:
            here = min(taken, each.memory_free)
            taken -= here
            left.append(replace(each, memory_free=each.memory_free - here))
        return tuple(left)

    async def left(self) -> None:
        """Tell all heads that this node shuts down; wait until they have let it go."""
        for each in self._workers:
            each.leave()
        await self._empty.wait()

    def check(self, order: HostWorker) -> None:
        """Raise NoWorker where this node cannot work with that head."""
        if self._program is None or not self.rpc:
            raise NoWorker(NO_PROGRAM)
        if not understand(order.rpc, self.rpc):
            raise NoWorker(
                f"this node has RPC {self.rpc} and the head {order.rpc or 'none'},"
                " which do not work together; build the same llama.cpp on both, with"
                " `edgeserve engine build`"
            )

    def need(self, id_: str) -> bool:
        """Whether a worker waits until an engine has left."""
        return any(id_ in each.leaving for each in self._workers if not each.port)

    @contextmanager
    def promise(
        self, order: HostWorker, *, gpu: bool, leaving: tuple[str, ...] = ()
    ) -> Generator[Worker]:
        """Count a worker for the length of the block."""
        worker = Worker(order, gpu=gpu, leaving=leaving)
        self._workers.append(worker)
        self._empty.clear()
        self._changed()
        try:
            yield worker
        finally:
            self._workers.remove(worker)
            if not self._workers:
                self._empty.set()
            self._changed()

    async def serve(
        self, worker: Worker, stream: RawStream, threads: int, room: Room
    ) -> None:
        """Run a worker until it or its head is lost."""
        assert self._program is not None  # noqa: S101 - `check` comes first
        order = worker.order
        log.info("works for %s: %s", order.name, order.variant)
        tools = Tools(
            program=self._program,
            threads=threads,
            cache=self._cache,
            state_dir=self._settings.state_dir,
        )
        why = await worker.serve(stream, tools, room)
        log.warning("no longer works for %s (%s): %s", order.name, order.variant, why)

    def find(self, key: str) -> Worker:
        """Return the worker that has a key. Raises UnknownWorker."""
        for each in self._workers:
            if each.key == key and each.state.state == "up":
                return each
        raise UnknownWorker

    async def connected(self, worker: Worker) -> RawStream:
        """Connect to a worker's process. Raises NodeLost, NoWorker."""
        if len(worker.tunnels) >= MOST_TUNNELS:
            raise NoWorker("this worker has as many tunnels as it may have")
        loop = asyncio.get_running_loop()
        try:
            made = await loop.create_connection(RawStream, LOOPBACK, worker.port)
        except OSError as error:
            raise NodeLost(f"its process does not listen: {in_words(error)}") from error
        return made[1]

    @contextmanager
    def tunnel(self, worker: Worker, *streams: RawStream) -> Generator[None]:
        """Join two streams while the block runs; they end with the worker."""
        with ExitStack() as stack:
            for each in streams:
                stack.callback(each.abort)
            worker.tunnels.add(streams[0])
            stack.callback(worker.tunnels.discard, streams[0])
            streams[0].join(streams[1])
            yield
