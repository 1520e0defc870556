"""A fleet of fakes that can serve a model together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from edgeserve.orders.groups import GroupCapacity, LayeredModel, group_id
from edgeserve.wire import AvailableModel, EngineReport
from tests.balancer.endpoint import CHAT, Answered, Endpoint, chat, endpoint, eventually
from tests.fakes.node import FakeNode, fake_node
from tests.fakes.reports import an_engine
from tests.patience import PATIENCE

GB = 10**9
LAYERED = LayeredModel(
    layers=10, layer_bytes=GB, rest_bytes=GB // 2, kv_bytes=1000, hidden_bytes=8192,
    context=8192,
)  # fmt: skip
BIG = AvailableModel(
    model="big",
    variant="big:Q4_1",
    file="big.gguf",
    reason="it does not fit: it needs 11 GB",
    remedy="",
    layered=LAYERED,
)
GROUP = group_id("big:Q4_1")
SMALL = an_engine("small:Q4_1")


def able(gigabytes: float = 7, speed: float = 10, **fields: Any) -> dict[str, Any]:
    """What a node reports that can take part in groups."""
    capacity = GroupCapacity(
        memory=int(gigabytes * GB), bytes_per_second=speed * GB, **fields
    )
    return {"rpc": "7.0.0", "capacity": capacity}


@asynccontextmanager
async def fleet(
    *workers: str,
    head: dict[str, Any] | None = None,
    engine: EngineReport = SMALL,
    filled: bool = False,
    **settings: Any,
) -> AsyncGenerator[tuple[Endpoint, FakeNode]]:
    """An endpoint before a node `pc` with the file of `big`, and workers."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        said: dict[str, Any] = {
            "available": (BIG,),
            **(able() if head is None else head),
        }
        pc = await enter(fake_node("pc", engine=engine, **said))
        nodes = [await enter(fake_node(each, **able())) for each in workers]
        pc.groups.filled = tuple(nodes) if filled else ()
        balancer = await enter(endpoint(pc, *nodes, **settings))
        await enter(asyncio.timeout(PATIENCE))
        groups = balancer.balancer.state.groups
        if settings.get("groups") != "off":
            await eventually(lambda: bool(groups.possible))
        yield balancer, pc


async def ask(balancer: Endpoint, model: str = "big", **fields: Any) -> Answered:
    return await balancer.post(CHAT, chat(model=model, max_tokens=4, **fields))
