"""How a fake node loads and unloads engines when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from edgeserve.orders.engines import (
    DESIRE,
    LOAD,
    UNLOAD,
    DesiredModel,
    LoadEngine,
    UnloadEngine,
)
from edgeserve.wire import EngineReport, encode

if TYPE_CHECKING:
    from tests.fakes.node import FakeNode

LOADED = {"ready", "busy", "loading"}


def refusal(status: int, code: str, why: str) -> web.Response:
    """Answer with an error as a node does."""
    error = {"error": {"message": why, "type": "invalid_request_error", "code": code}}
    headers = {"retry-after": "1"} if code == "engines_busy" else None
    return web.json_response(error, status=status, headers=headers)


@dataclass
class FakeLoads:
    """The orders of a fake node. `room`: how many engines its memory holds.

    Loads take `seconds`; while `held`, they go on without end; `fails` is why they
    fail, `refuses` a code with which orders are refused. `orders` are those that came,
    `loads` the engines that began to load.
    """

    node: FakeNode
    room: int | None = None
    seconds: float = 0.0
    fails: str = ""
    refuses: str = ""
    orders: list[LoadEngine | UnloadEngine | DesiredModel] = field(
        default_factory=list[LoadEngine | UnloadEngine | DesiredModel]
    )
    loads: list[str] = field(default_factory=list[str])
    _free: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    def __post_init__(self) -> None:
        self._free.set()

    def hold(self) -> None:
        """Let loads go on without end, until `release`."""
        self._free.clear()

    def release(self) -> None:
        """Let loads end."""
        self._free.set()

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the orders."""
        return [
            web.post(LOAD, self.load),
            web.post(UNLOAD, self.unload),
            web.post(DESIRE, self.desire),
        ]

    def evicts(self, engine: EngineReport) -> tuple[str, ...]:
        """Name the engines that would have to leave: idle ones first."""
        if self.room is None or engine.state in LOADED:
            return ()
        there = [each for each in self.node.report.engines if each.state in LOADED]
        there.sort(key=lambda each: (each.busy, each.id))
        return tuple(each.id for each in there[: max(0, len(there) - self.room + 1)])

    async def load(self, request: web.Request) -> web.Response:
        """Take an order to load."""
        order = msgspec.json.decode(await request.read(), type=LoadEngine)
        self.orders.append(order)
        engine = self.node.find(order.engine)
        if engine is None:
            return refusal(404, "unknown_engine", f"no engine {order.engine}")
        if self.refuses:
            return refusal(409, self.refuses, f"made to refuse: {self.refuses}")
        leaving = [self.node.find(each) for each in self.evicts(engine)]
        if not order.drain and any(each and each.busy for each in leaving):
            return refusal(409, "engines_busy", "engines in the way are busy")
        if engine.state == "absent":
            self._begin(self._load(order.engine))
        return web.Response(body=encode(self.node.find(order.engine)), status=202)

    async def unload(self, request: web.Request) -> web.Response:
        """Take an order to unload."""
        order = msgspec.json.decode(await request.read(), type=UnloadEngine)
        self.orders.append(order)
        if self.node.find(order.engine) is None:
            return refusal(404, "unknown_engine", f"no engine {order.engine}")
        if self.refuses:
            return refusal(409, self.refuses, f"made to refuse: {self.refuses}")
        self._begin(self._leave(order.engine, order.why))
        return web.Response(body=encode(self.node.find(order.engine)), status=202)

    async def desire(self, request: web.Request) -> web.Response:
        """Note what it was told of a model."""
        told = msgspec.json.decode(await request.read(), type=DesiredModel)
        self.orders.append(told)
        others = [e for e in self.node.report.desired if e.model != told.model]
        desired = (*others, *(() if told.usual else (told,)))
        self.node.say(msgspec.structs.replace(self.node.report, desired=desired))
        return web.Response(body=encode(desired))

    def _begin(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _load(self, id_: str) -> None:
        engine = self.node.find(id_)
        assert engine is not None
        for other in self.evicts(engine):
            await self._leave(other, f"{id_} needs its memory")
        self.loads.append(id_)
        self.node.change(id_, state="loading", progress=0.5)
        await asyncio.sleep(self.seconds)
        await self._free.wait()
        if self.fails:
            self.node.change(id_, state="failed", progress=None, reason=self.fails)
            return
        epoch = engine.epoch + 1
        self.node.change(id_, state="ready", progress=None, epoch=epoch, reason=None)

    async def _leave(self, id_: str, why: str) -> None:
        await self._until(lambda: self._is_idle(id_), id_, why)
        self.node.change(id_, state="absent", reason=why)

    def _is_idle(self, id_: str) -> bool:
        engine = self.node.find(id_)
        return engine is None or engine.busy == 0

    async def _until(self, true: Callable[[], bool], id_: str, why: str) -> None:
        if not true():
            self.node.change(id_, state="leaving", reason=why)
        while not true():
            await asyncio.sleep(0.005)

    async def end(self) -> None:
        """End every load."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
