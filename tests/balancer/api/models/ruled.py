"""A balancer with fake nodes that take orders, and an admin of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from edgeserve.config.paths import admin_key_file
from edgeserve.orders.engines import DesiredModel, LoadEngine, UnloadEngine
from edgeserve.wire import EngineReport
from tests.balancer.endpoint import Answered, Endpoint, endpoint
from tests.fakes.node import FakeNode, fake_node
from tests.fakes.reports import an_engine

OWN = "/edgeserve/v1/models"


def engine(state: Any, seconds: float = 1.0, **fields: Any) -> EngineReport:
    changes = {"load_seconds": seconds, **fields}
    return msgspec.structs.replace(an_engine(state=state), **changes)


KINDS: dict[type, str] = {
    LoadEngine: "load",
    UnloadEngine: "unload",
    DesiredModel: "desired",
}


@dataclass
class Ruled:
    """A balancer, its nodes by name, and the key of its machine's commands."""

    endpoint: Endpoint
    nodes: dict[str, FakeNode]
    key: str
    key_file: Path

    async def order(self, action: str, name: str = "small", **body: Any) -> Answered:
        """Give an order."""
        path = f"{OWN}/{name}/{action}"
        return await self.endpoint.post(
            path, body, {"authorization": f"Bearer {self.key}"}
        )

    async def rows(self) -> Any:
        """Return the overview."""
        return (await self.endpoint.get(OWN)).json

    def got(self, node: str) -> list[tuple[str, dict[str, Any]]]:
        """Return the orders that a node got."""
        return [
            (KINDS[type(each)], structs.asdict(each))
            for each in self.nodes[node].loads.orders
        ]

    async def known(self, node: str) -> None:
        """Wait until the balancer knows what a node reports."""
        report = self.nodes[node].report
        await self.endpoint.until(
            lambda fleet: any(each.report == report for each in fleet.nodes)
        )


@asynccontextmanager
async def ruled(tmp_path: Path, **engines: EngineReport) -> AsyncGenerator[Ruled]:
    async with AsyncExitStack() as stack:
        nodes = {
            name: await stack.enter_async_context(fake_node(name, engine=each))
            for name, each in engines.items()
        }
        for each in nodes.values():
            each.loads.hold()
        balancer = await stack.enter_async_context(
            endpoint(*nodes.values(), state_dir=tmp_path)
        )
        file = admin_key_file(tmp_path, balancer.balancer.origin.port)
        yield Ruled(balancer, nodes, file.read_text().strip(), file)
