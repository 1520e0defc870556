"""A node in this process, and the orders that a balancer would send it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from edgeserve.config.settings import NodeSettings
from edgeserve.orders.engines import DESIRE, LOAD, UNLOAD
from edgeserve.wire import EngineReport, NodeReport, decode, encode
from tests.node.shelf.watched import Seen, Watched, running

__all__ = ["Ordered", "engine", "ordered", "states"]


class Ordered:
    """A node that follows orders."""

    def __init__(self, watched: Watched) -> None:
        self.watched = watched
        self.until = watched.until
        self.chat = watched.chat
        self.report = watched.report

    async def load(self, name: str, **more: Any) -> EngineReport:
        """Order a load, and see that it is accepted."""
        status, body, _ = await self.post(LOAD, engine=f"{name}:F16", **more)
        assert status == 202, body
        return decode(body, EngineReport)

    async def unload(self, name: str, **more: Any) -> EngineReport:
        status, body, _ = await self.post(UNLOAD, engine=f"{name}:F16", **more)
        assert status == 202, body
        return decode(body, EngineReport)

    async def desire(self, name: str, **more: Any) -> None:
        status, body, _ = await self.post(DESIRE, model=name, **more)
        assert status == 200, body

    async def refused(self, path: str, **order: Any) -> tuple[int, str, bool]:
        """Send an order; returns status, code, and whether there is a Retry-After."""
        status, body, headers = await self.post(path, **order)
        code: str = msgspec.json.decode(body)["error"]["code"]
        return status, code, "retry-after" in headers

    async def post(self, path: str, **order: Any) -> tuple[int, bytes, Any]:
        async with self.watched.client.post(path, data=encode(order)) as answer:
            return answer.status, await answer.read(), answer.headers


@asynccontextmanager
async def ordered(settings: NodeSettings) -> AsyncGenerator[Ordered]:
    async with running(settings) as watched:
        yield Ordered(watched)


def states(**wanted: str) -> Seen:
    """Whether the engines of these models are in these states, and no others are."""

    def seen(report: NodeReport) -> bool:
        return {each.model: each.state for each in report.engines} == wanted

    return seen


def engine(report: NodeReport, name: str) -> EngineReport:
    return next(each for each in report.engines if each.model == name)
