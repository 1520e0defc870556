"""What a node promises the heads of other nodes, and what it refuses them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil
import pytest

from edgeserve.errors import NodeLost
from edgeserve.http.client.raw import raw_stream
from edgeserve.orders.engines import LOAD, LoadEngine
from edgeserve.orders.groups import WORKERS, HostWorker
from edgeserve.wire import EngineState, NodeReport, encode
from node.lifecycle.refusals import EnginesBusy
from node.lifecycle.running import Served
from tests.node.groups.grouped import MEMORY, VARIANT, Node, asking, some_nodes


async def refusal(node: Node, **changes: object) -> str:
    """Ask a node to be a worker; return why it refuses."""
    order = HostWorker(
        head="h", name="attic", variant=VARIANT, memory=MEMORY, rpc="7.0.0"
    )
    body = encode(msgspec.structs.replace(order, **changes))
    async with asking(node) as (ask, origin):
        with pytest.raises(NodeLost) as refused:
            async with raw_stream(ask, origin, WORKERS, body):
                pass
    return str(refused.value)


async def test_a_worker_refuses_what_it_cannot_do_with_the_reason(
    tmp_path: Path, model: Path
) -> None:
    async with some_nodes(tmp_path, model, "left") as (_, left):
        other = await refusal(left, rpc="8.0.0")
        large = await refusal(left, memory=2**50)

    assert "RPC 7.0.0" in other
    assert "edgeserve engine build" in other
    assert "1,024 TiB" in large or "GiB" in large
    assert "90%" in large
    assert large.index("is free") < large.index("90%")


async def test_a_promised_memory_is_not_promised_twice(
    tmp_path: Path, model: Path
) -> None:
    async with some_nodes(tmp_path, model, "left") as (_, left):
        free = psutil.virtual_memory().available
        most = int(free * 0.6)
        order = HostWorker(
            head="h", name="attic", variant=VARIANT, memory=most, rpc="7.0.0"
        )
        async with (
            asking(left) as (ask, origin),
            raw_stream(ask, origin, WORKERS, encode(order)),
        ):
            why = await refusal(left, memory=most)

    assert "a worker needs" in why


async def test_an_engine_that_leaves_for_a_worker_is_not_asked_to_stay(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Served, "settled", property(lambda _: False))
    async with some_nodes(tmp_path, model, memory_mib=1024) as (node,):
        [engine] = (await node.until(_in_state("ready"))).engines
        order = HostWorker(
            head="h",
            name="attic",
            variant=VARIANT,
            memory=2**30 - engine.memory // 2,
            rpc="7.0.0",
        )
        async with (
            asking(node) as (ask, origin),
            raw_stream(ask, origin, WORKERS, encode(order)),
        ):
            await node.until(_in_state("leaving"))
            status, body = await node.post(LOAD, encode(LoadEngine(engine=engine.id)))

    assert status == EnginesBusy.status, body


def _in_state(state: EngineState) -> Callable[[NodeReport], bool]:
    return lambda report: any(each.state == state for each in report.engines)
