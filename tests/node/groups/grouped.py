"""Nodes in this process that form groups; llama.cpp's programs only pretend."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from edgeserve.config.settings import NodeSettings
from edgeserve.http import Origin, upstream
from edgeserve.http.client.pool import Pool
from edgeserve.http.types import origin_of
from edgeserve.orders.groups import FORM, FormGroup, GroupWorker
from edgeserve.wire import EngineReport, NodeReport, encode
from node.engines.process import free_port
from tests.fakes.rpc import VERSION, worker_program
from tests.fleet.llama_server import script
from tests.node.served import served
from tests.node.shelf.watched import Seen, Watched
from tests.patience import PATIENCE

VARIANT = "big:F16"
MEMORY = 2**26
SLOW = ("--decode", "100", "--length", "100")


@dataclass
class Node:
    """A node and its settings."""

    settings: NodeSettings
    watched: Watched
    stop: asyncio.Event

    async def report(self) -> NodeReport:
        return await self.watched.report()

    async def until(self, seen: Seen) -> NodeReport:
        return await self.watched.until(seen)

    async def worker(self, share: float = 0.5, memory: int = MEMORY) -> GroupWorker:
        """Describe it as a worker, as a balancer does."""
        report = await self.report()
        return GroupWorker(
            node=report.id,
            name=report.name,
            urls=(f"http://127.0.0.1:{report.port}",),
            share=share,
            memory=memory,
        )

    async def form(self, *workers: GroupWorker) -> tuple[int, bytes]:
        """Order it to be the head of a group."""
        share = 1 - sum(each.share for each in workers)
        order = FormGroup(variant=VARIANT, share=share, workers=workers, context=512)
        return await self.post(FORM, encode(order))

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        async with self.watched.client.post(path, data=body) as answer:
            return answer.status, await answer.read()


def settings_of(folder: Path, name: str, model: Path | None) -> NodeSettings:
    """Make the folders and programs of a node; the head has the model."""
    models = folder / name / "models"
    models.mkdir(parents=True)
    if model is not None:
        shutil.copy(model, models / "big-F16.gguf")
    programs = folder / name / "bin"
    programs.mkdir()
    return NodeSettings(
        name=name,
        port=free_port(),
        state_dir=folder / name / "state",
        models_dir=models,
        llama_server=script(programs / "llama-server", *SLOW),
        slots=1,
        advertise=False,
    )


@asynccontextmanager
async def some_nodes(
    folder: Path,
    model: Path,
    *workers: str,
    version: bytes = VERSION,
    memory_mib: int = 0,
) -> AsyncGenerator[tuple[Node, ...]]:
    """Run a head, and workers of these names, until each knows its RPC."""
    async with AsyncExitStack() as stack, asyncio.timeout(3 * PATIENCE):
        nodes = list[Node]()
        for name in ("head", *workers):
            settings = settings_of(folder, name, model if name == "head" else None)
            settings = replace(settings, memory_mib=memory_mib)
            own = VERSION if name == "head" else version
            assert settings.llama_server
            worker_program(settings.llama_server.parent, own)
            client, stop = await stack.enter_async_context(served(settings))
            node = Node(settings, Watched(client), stop)
            await node.until(lambda report: report.rpc)
            nodes.append(node)
        yield tuple(nodes)


@asynccontextmanager
async def asking(node: Node) -> AsyncGenerator[tuple[Pool, Origin]]:
    """Be another node, which asks this one."""
    async with upstream(connect_seconds=PATIENCE) as ask:
        yield ask, origin_of(f"http://127.0.0.1:{node.settings.port}", 0)


def group(report: NodeReport) -> EngineReport | None:
    """Return the group's engine."""
    return next((each for each in report.engines if each.group), None)


def ready(report: NodeReport) -> bool:
    """Whether the group serves."""
    found = group(report)
    return found is not None and found.state == "ready"


def processes(node: Node) -> list[psutil.Process]:
    """Return the worker processes of a node."""
    assert node.settings.llama_server
    program = str(node.settings.llama_server.with_name("ggml-rpc-server"))
    children = psutil.Process().children(recursive=True)
    return [each for each in children if _is_worker(each, program)]


def _is_worker(process: psutil.Process, program: str) -> bool:
    """Whether it runs for that node: the weights are kept in its folder."""
    with suppress(psutil.Error):
        folder = Path(process.environ().get("LLAMA_CACHE", "/"))
        return folder.is_relative_to(Path(program).parents[1])
    return False
