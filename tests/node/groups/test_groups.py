from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import psutil
import pytest

from edgeserve.errors import NodeLost
from edgeserve.http import Origin, upstream
from edgeserve.http.client.pool import Pool
from edgeserve.http.client.raw import raw_stream
from edgeserve.http.types import origin_of
from edgeserve.orders.groups import (
    DISSOLVE,
    LINK,
    RPC,
    WORKERS,
    DissolveGroup,
    HostWorker,
    MeasureLink,
    NodeLink,
    OpenTunnel,
)
from edgeserve.wire import NodeReport, decode, encode
from node.supervision import restart
from tests.node.groups.grouped import (
    MEMORY,
    VARIANT,
    Node,
    group,
    processes,
    ready,
    some_nodes,
)
from tests.patience import PATIENCE


def lost(report: NodeReport) -> bool:
    """Whether the group's engine ended for want of a member."""
    found = group(report)
    ended = found is not None and found.state == "failed"
    return ended and found is not None and "has lost" in (found.reason or "")


@asynccontextmanager
async def asking(node: Node) -> AsyncGenerator[tuple[Pool, Origin]]:
    """Be another node, which asks this one."""
    async with upstream(connect_seconds=PATIENCE) as ask:
        yield ask, origin_of(f"http://127.0.0.1:{node.settings.port}", 0)


async def gone(node: Node) -> None:
    """Wait until a node has no worker process."""
    async with asyncio.timeout(PATIENCE):
        while processes(node):
            await asyncio.sleep(0.05)


async def test_a_head_and_two_workers_serve_one_model(
    tmp_path: Path, model: Path
) -> None:
    async with some_nodes(tmp_path, model, "left", "right") as (head, left, right):
        status, body = await head.form(
            await left.worker(0.25), await right.worker(0.25)
        )
        assert status == 202, body
        report = await head.until(ready)
        words = await head.watched.chat("big")
        works = [(await each.report()).workers for each in (left, right)]

    engine = group(report)
    assert engine is not None
    assert [each.name for each in engine.group] == ["head", "left", "right"]
    assert {each.state for each in engine.group} == {"up"}
    assert len(engine.launch.workers) == 2
    assert words.endswith(b"data: [DONE]\n\n")
    assert [[each.variant for each in found] for found in works] == [[VARIANT]] * 2


async def test_nothing_of_a_group_listens_past_loopback(
    tmp_path: Path, model: Path
) -> None:
    async with some_nodes(tmp_path, model, "left") as (head, left):
        await head.form(await left.worker())
        await head.until(ready)
        us = psutil.Process()
        hosts = {
            each.laddr[0]
            for process in (us, *us.children(recursive=True))
            for each in process.net_connections("tcp")
            if each.status == psutil.CONN_LISTEN
        }

    assert hosts == {"127.0.0.1"}


async def test_a_group_that_serves_lets_nobody_else_connect_to_a_worker(
    tmp_path: Path, model: Path
) -> None:
    async with some_nodes(tmp_path, model, "left") as (head, left):
        await head.form(await left.worker())
        before = {head.settings.port, left.settings.port}
        await head.until(ready)
        ports = {
            each.laddr[1]
            for each in psutil.Process().net_connections("tcp")
            if each.status == psutil.CONN_LISTEN
        }

    assert ports == before


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_worker_that_dies_or_freezes_ends_the_engine_which_starts_again(
    tmp_path: Path, model: Path, how: signal.Signals
) -> None:
    async with some_nodes(tmp_path, model, "left", "right") as (head, left, right):
        await head.form(await left.worker(0.25), await right.worker(0.25))
        await head.until(ready)
        (worker,) = processes(left)
        os.kill(worker.pid, how)
        ended = await head.until(lost)
        again = await head.until(ready)

    engine, later = group(ended), group(again)
    assert engine is not None
    assert later is not None
    assert "left" in (engine.reason or "")
    assert engine.ended == "killed"
    states = {each.name: each.state for each in engine.group}
    assert states["left"] == "lost"
    assert later.epoch > engine.epoch
    assert {each.state for each in later.group} == {"up"}


async def test_a_lost_member_never_quarantines_the_model(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restart, "FIRST", 0.05)
    async with some_nodes(tmp_path, model, "left") as (head, left):
        worker = await left.worker()
        nowhere = msgspec.structs.replace(worker, urls=("http://127.0.0.1:9",))
        await head.form(nowhere)
        report = await head.until(lambda report: _tries(report) > 4)

    engine = group(report)
    assert engine is not None
    assert engine.state in {"loading", "failed"}
    assert "left" in (engine.reason or "")


def _tries(report: NodeReport) -> int:
    engine = group(report)
    return engine.epoch if engine else 0


async def test_dissolving_a_group_ends_its_engine_and_frees_its_workers(
    tmp_path: Path, model: Path
) -> None:
    async with some_nodes(tmp_path, model, "left") as (head, left):
        await head.form(await left.worker())
        await head.until(ready)
        order = DissolveGroup(variant=VARIANT, why="a smaller variant is quicker")
        status, _ = await head.post(DISSOLVE, encode(order))
        report = await head.until(lambda report: group(report) is None)
        await left.until(lambda report: not report.workers)
        await gone(left)
        again, body = await head.post(DISSOLVE, encode(order))

    assert status == 204
    assert VARIANT in {each.variant for each in report.engines}
    assert again == 404, body


async def test_a_worker_that_is_stopped_lets_the_running_answer_end(
    tmp_path: Path, model: Path
) -> None:
    async with some_nodes(tmp_path, model, "left") as (head, left):
        await head.form(await left.worker())
        await head.until(ready)
        chatting = asyncio.create_task(head.watched.chat(f"{VARIANT}@group"))
        await head.until(lambda report: bool((found := group(report)) and found.busy))
        left.stop.set()
        words = await chatting
        report = await head.until(lambda report: group(report) is None)
        await gone(left)

    assert words.endswith(b"data: [DONE]\n\n")
    assert "big:F16@group" not in {each.id for each in report.engines}


async def test_a_head_that_leaves_frees_its_workers(
    tmp_path: Path, model: Path
) -> None:
    async with some_nodes(tmp_path, model, "left") as (_head, left):
        order = HostWorker(
            head="h", name="attic", variant=VARIANT, memory=MEMORY, rpc="7.0.0"
        )
        async with (
            asking(left) as (ask, origin),
            raw_stream(ask, origin, WORKERS, encode(order)),
        ):
            there = await left.until(lambda report: bool(report.workers))
        await left.until(lambda report: not report.workers)
        await gone(left)

    assert there.workers[0].head == "h"


async def test_a_tunnel_needs_the_key_of_its_worker(
    tmp_path: Path, model: Path
) -> None:
    async with some_nodes(tmp_path, model, "left") as (head, left):
        await head.form(await left.worker())
        await head.until(ready)
        body = encode(OpenTunnel(key="0" * 32))
        async with asking(left) as (ask, origin):
            with pytest.raises(NodeLost, match="no such worker"):
                async with raw_stream(ask, origin, RPC, body):
                    pass


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


async def test_the_link_to_another_node_is_measured(
    tmp_path: Path, model: Path
) -> None:
    async with some_nodes(tmp_path, model, "left") as (head, left):
        worker = await left.worker()
        order = MeasureLink(node=worker.node, urls=worker.urls)
        status, body = await head.post(LINK, encode(order))
        link = decode(body, NodeLink)

    assert status == 200
    assert 0 < link.round_trip < 1
    assert link.bytes_per_second > 2**20
    assert link.wired
