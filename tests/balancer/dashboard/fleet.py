"""A fleet of fakes that has everything to show: what the dashboard's tests look at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import msgspec

from edgeserve.orders.engines import DesiredModel
from edgeserve.orders.pulls import PullOrder
from edgeserve.reports.hardware import Cpu, Gpu, Hardware, Memory, Power, Thermal
from edgeserve.wire import AvailableModel
from tests.balancer.endpoint import CHAT, Endpoint, chat, endpoint
from tests.fakes.llama import Behaviour
from tests.fakes.node import FakeNode, fake_node
from tests.fakes.reports import HARDWARE, an_engine

GIB = 2**30
QWEN, LLAMA = "qwen3-8b:Q4_K_M", "llama3.2-3b:Q4_K_M"
HOSTILE = "<img src=x onerror=alert(1)>"
"""A name that would run if it became markup."""


def hardware(
    cpu: str, cores: int, used: float, total: float, **fields: Any
) -> Hardware:
    """Describe a machine; memory in GiB."""
    return msgspec.structs.replace(
        HARDWARE,
        cpu=Cpu(model=cpu, physical_cores=cores, logical_cores=cores, load=0.31),
        memory=Memory(total=int(total * GIB), available=int((total - used) * GIB)),
        **fields,
    )


@dataclass
class Shown:
    """The fleet as it runs, and the nodes in it."""

    balancer: Endpoint
    nodes: list[FakeNode]

    async def ask(self, model: str, words: str) -> None:
        """Ask something, and let it be answered."""
        await self.balancer.post(CHAT, chat(words, model, stream=True))


@asynccontextmanager
async def shown(*, hostile: bool = False, **settings: Any) -> AsyncGenerator[Shown]:
    """Run it: a GPU, a small PC, a hot Pi, a laptop on battery that breaks answers."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(each) for each in _nodes(hostile)]
        balancer = await stack.enter_async_context(endpoint(*nodes, **settings))
        nodes[1].files.ordered.append(
            PullOrder(source="hf.co/unsloth/gemma-3-4b-it-GGUF")
        )
        nodes[1].files.pulls(
            state="fetching", done=int(1.1 * GIB), total=int(2.5 * GIB), step="fetching"
        )
        yield Shown(balancer, nodes)


def _nodes(hostile: bool) -> Iterator[Any]:
    gpu = Gpu(name="NVIDIA RTX 4070", memory_total=12 * GIB, memory_free=5 * GIB)
    yield fake_node(
        "workshop",
        Behaviour(slots=4, decode=38.0, prefill=2400.0, length=80),
        engine=an_engine(QWEN, slots=4, context=8192, memory=int(6.4 * GIB)),
        others=[an_engine("qwen3-8b:Q8_0", state="absent", memory=int(9.9 * GIB))],
        hardware=hardware("AMD Ryzen 7 5800X", 8, 9.2, 32, gpus=(gpu,),
                          thermal=Thermal(celsius=61.0)),
        desired=(DesiredModel(model="qwen3-8b", pinned=True),),
    )  # fmt: skip
    yield fake_node(
        "nuc",
        Behaviour(slots=2, decode=14.0, prefill=320.0, length=45),
        engine=an_engine(LLAMA, slots=2, memory=int(3.1 * GIB)),
        hardware=hardware("Intel N100", 4, 6.1, 16, thermal=Thermal(celsius=54.0)),
    )
    name = HOSTILE if hostile else "pi-5"
    yield fake_node(
        name,
        Behaviour(slots=2, decode=7.0, prefill=90.0, length=30),
        engine=an_engine(f"{HOSTILE}:Q4" if hostile else "smollm2-1.7b:Q4_0", slots=2,
                         memory=int(1.4 * GIB)),
        hardware=hardware("Cortex-A76", 4, 5.2, 8,
                          thermal=Thermal(celsius=83.0, throttled=True)),
        available=(AvailableModel(model="qwen3-8b", variant=QWEN, file="q.gguf",
                                  reason="it needs 6.4 GiB, and 4 GiB are free",
                                  remedy="serve a smaller variant"),),
    )  # fmt: skip
    yield fake_node(
        "laptop",
        Behaviour(slots=2, decode=16.0, prefill=400.0, length=45,
                  fault="break", fault_tokens=12, fault_count=2),
        engine=an_engine(LLAMA, slots=2, memory=int(3.1 * GIB)),
        hardware=hardware("Apple M2", 8, 9.8, 16,
                          power=Power(on_mains=False, percent=43.0)),
    )  # fmt: skip


QUESTIONS = cycle(
    (
        (QWEN, "Why is the sky blue?"),
        ("llama3.2-3b", "Name three rivers."),
        ("smollm2-1.7b", "Say hello."),
        ("llama3.2-3b", "Summarise this letter."),
    )
)


async def traffic(fleet: Shown, every: float = 0.5) -> None:
    """Ask without end, at an even pace."""
    async with asyncio.TaskGroup() as group:
        for model, words in QUESTIONS:
            group.create_task(fleet.ask(model, words))
            await asyncio.sleep(every)
