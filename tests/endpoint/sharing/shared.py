"""Nodes that admit as real ones do, with fake engines, and their balancers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import aiohttp

from edgeserve.http import Origin, bind, listen, upstream
from edgeserve.openai import ROUTES
from edgeserve.security.tokens import Guard
from node.api.admin import routes
from node.api.inference import InferenceHandler
from node.kept_log import KeptLog
from node.state import NodeState
from node.supervision.slots import Slots
from tests.balancer.endpoint import CHAT, Endpoint, chat, endpoint
from tests.fakes.llama import Behaviour, fake_llama
from tests.node.building import PretendSupervisor, SomeId, a_node, an_engine

SAMPLE_SECONDS = 0.01
MODEL = "tiny"


@dataclass(frozen=True)
class Share:
    """What one balancer had: its part of the taken slots, and whole answers."""

    slots: float
    answers: int
    refused: int


@dataclass
class Sharing:
    """Balancers that share nodes."""

    nodes: list[NodeState]
    balancers: list[Endpoint]

    async def shares(
        self, clients: Sequence[int], seconds: float, late: float = 0.0
    ) -> list[Share]:
        """Have so many clients ask each balancer at all times, and measure.

        All but the first balancer's begin `late` seconds later; then the time counts.
        """
        loads = [_Load(each) for each in self.balancers]
        async with asyncio.TaskGroup() as tasks:
            for number, (load, count) in enumerate(zip(loads, clients, strict=True)):
                load.begin(tasks, count, late if number else 0.0)
            await asyncio.sleep(late)
            for load in loads:
                load.answers = 0
            held = await self._held(seconds)
            for load in loads:
                load.end()
        total = max(1, sum(held))
        return [
            Share(round(each / total, 3), load.answers, load.refused)
            for each, load in zip(held, loads, strict=True)
        ]

    async def _held(self, seconds: float) -> list[int]:
        loop = asyncio.get_running_loop()
        until, held = loop.time() + seconds, [0] * len(self.balancers)
        while loop.time() < until:
            for number, each in enumerate(self.balancers):
                counts = each.balancer.state.slot_counts
                for node in self.nodes:
                    held[number] += sum(counts.ours(node.identity.id).values())
            await asyncio.sleep(SAMPLE_SECONDS)
        return held


class _Load:
    """Clients of one balancer: each asks again as soon as it is answered."""

    def __init__(self, balancer: Endpoint) -> None:
        self._balancer = balancer
        self._tasks = list[asyncio.Task[None]]()
        self.answers = self.refused = 0

    def begin(self, tasks: asyncio.TaskGroup, count: int, after: float) -> None:
        for number in range(count):
            self._tasks.append(tasks.create_task(self._ask(number, after)))

    def end(self) -> None:
        for each in self._tasks:
            each.cancel()

    async def _ask(self, client: int, after: float) -> None:
        await asyncio.sleep(after)
        connector = aiohttp.TCPConnector(limit=0)
        url = self._balancer.balancer.origin.url
        async with aiohttp.ClientSession(url, connector=connector) as session:
            await self._go_on(session, client)

    async def _go_on(self, session: aiohttp.ClientSession, client: int) -> None:
        for turn in range(1_000_000):
            words = f"{id(self)} {client} {turn}"
            async with session.post(CHAT, json=chat(words, model=MODEL)) as got:
                await got.read()
            if got.status == 200:
                self.answers += 1
            else:
                self.refused += 1


@asynccontextmanager
async def sharing(
    *behaviours: Behaviour, balancers: int = 2
) -> AsyncGenerator[Sharing]:
    """Run a node for each behaviour of an engine, and balancers that know them all."""
    async with AsyncExitStack() as stack:
        nodes, urls = list[NodeState](), list[str]()
        for number, behaviour in enumerate(behaviours):
            state, url = await stack.enter_async_context(_node(number, behaviour))
            nodes.append(state)
            urls.append(url)
        made = [
            await stack.enter_async_context(endpoint(*urls, autoscale=False))
            for _ in range(balancers)
        ]
        yield Sharing(nodes, made)


@asynccontextmanager
async def _node(
    number: int, behaviour: Behaviour
) -> AsyncGenerator[tuple[NodeState, str]]:
    behaviour.model = f"{MODEL}:Q4_0"
    async with fake_llama(behaviour) as llama:
        report = an_engine(slots=behaviour.slots)
        supervisor = PretendSupervisor(report, Origin("127.0.0.1", llama.port))
        state = a_node(supervisor)
        state.name = f"node-{number}"
        state.identity = SomeId(f"{number:032x}")
        supervisor.slots = Slots(
            report.slots,
            lambda: state.feed.engine_changed(report.id),
            time.monotonic,
        )
        guard = Guard([], "the fleet token is")
        sock = bind("127.0.0.1", 0)
        state.port = sock.getsockname()[1]
        async with (
            upstream(connect_seconds=30) as ask,
            listen(
                sock,
                InferenceHandler(state, ask, guard),
                ROUTES.__contains__,
                routes(state, guard, KeptLog("process")),
                body_limit=2**20,
            ) as port,
        ):
            try:
                yield state, f"http://127.0.0.1:{port}"
            finally:
                state.feed.close()
