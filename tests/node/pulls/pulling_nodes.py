"""Nodes that pull from one another on loopback; nothing else of them runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edgeserve import http
from edgeserve.config.settings import NodeSettings
from edgeserve.http.types import Handler, Request, Response
from edgeserve.models.pull.arrival import UNFINISHED
from edgeserve.orders.pulls import PIECE, Peer, PullOrder, PullReport
from edgeserve.security.tokens import Guard
from node.api.files import BEGIN, FileHandler
from node.api.pulls import PullRoutes
from node.pulls.running import Pulling, pulling
from node.pulls.shared import Wanted
from tests.edgeserve.http.talk import echo
from tests.patience import PATIENCE

LARGE = b"GGUF" + os.urandom(5 * PIECE + 1000)
PIECES = 6


def parts(models: Path) -> list[Path]:
    """Return the files that are not whole yet."""
    return sorted((models / UNFINISHED).glob("*"))


Before = Callable[[Request], None]


@dataclass
class PullingNode:
    """One node. `before` sees each request for a file, and may raise.

    A `silent` one takes those requests and answers nothing.
    """

    id: str
    models: Path
    settings: NodeSettings
    url: str = ""
    before: Before = lambda _: None
    silent: bool = False
    asked: list[Request] = field(default_factory=list[Request])
    news: list[tuple[PullReport, ...]] = field(
        default_factory=list[tuple[PullReport, ...]]
    )
    pulling: Pulling = field(init=False)

    @property
    def peer(self) -> Peer:
        return Peer(id=self.id, name=self.id, urls=(self.url,))

    def put(self, name: str, content: bytes) -> Path:
        """Put a model file into its folder."""
        path = self.models / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def order(self, source: str, *peers: PullingNode, revision: str = "") -> str:
        """Order a pull; return its id."""
        named = tuple(each.peer for each in peers)
        order = PullOrder(source=source, peers=named, revision=revision)
        return self.pulling.jobs.order(order).id

    def report(self, id_: str) -> PullReport:
        return next(each for each in self.pulling.jobs.reports if each.id == id_)

    async def until(
        self, id_: str, true: Callable[[PullReport], bool] = lambda report: report.over
    ) -> PullReport:
        """Wait until a pull is over, or something else is true of it."""
        async with asyncio.timeout(PATIENCE):
            while not true(self.report(id_)):
                await asyncio.sleep(0.01)
        return self.report(id_)

    async def known(self, path: Path) -> None:
        """Wait until the checksums of a file are known."""
        wanted = Wanted(size=path.stat().st_size)
        async with asyncio.timeout(PATIENCE):
            while (await self.pulling.library.find(wanted)).reading:
                await asyncio.sleep(0.01)

    def sent(self) -> list[str]:
        """The ranges that others have asked for."""
        return [each.headers["range"] for each in self.asked if "range" in each.headers]


@asynccontextmanager
async def some_nodes(folder: Path, *ids: str) -> AsyncGenerator[list[PullingNode]]:
    """Run nodes of these ids."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(a_node(folder / id_, id_)) for id_ in ids
        ]


@asynccontextmanager
async def a_node(folder: Path, id_: str) -> AsyncGenerator[PullingNode]:
    """Run a node."""
    models = folder / "models"
    models.mkdir(parents=True, exist_ok=True)
    settings = NodeSettings(models_dir=models, state_dir=folder / "state")
    node = PullingNode(id_, models, settings)
    sock = http.bind("127.0.0.1", 0)
    async with (
        http.upstream(connect_seconds=5) as upstream,
        pulling(settings, upstream, lambda: id_, node.news.append) as node.pulling,
    ):
        routes = PullRoutes(node.pulling.jobs, node.pulling.library, Guard((), ""))
        async with http.listen(
            sock,
            _handler(node),
            lambda path: path.startswith(BEGIN),
            routes.routes(),
            body_limit=2**20,
        ) as port:
            node.url = f"http://127.0.0.1:{port}"
            yield node


def _handler(node: PullingNode) -> Handler:
    files = FileHandler((node.pulling.library.path,), Guard((), ""), echo)

    async def handle(request: Request, reply: Response) -> None:
        node.asked.append(request)
        node.before(request)
        if node.silent:
            await asyncio.Event().wait()
        await files(request, reply)

    return handle
