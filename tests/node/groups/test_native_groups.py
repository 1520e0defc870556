"""Real groups: SmolLM2 over three nodes on loopback, each member lost in turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from edgeserve.errors import EdgeserveError
from edgeserve.http import upstream
from edgeserve.http.channel.opening import FleetChannel
from edgeserve.http.client.raw import raw_stream
from edgeserve.orders.groups import RPC, WORKERS, HostWorker, OpenTunnel
from edgeserve.security.certificates import SERVER_NAME, fleet_context
from edgeserve.security.tokens import FleetTokens
from edgeserve.wire import NodeReport, encode
from tests.fakes.cable import cable
from tests.native import native
from tests.node.groups.grouped import group
from tests.node.groups.real import (
    VARIANT,
    RealNode,
    memory_limits,
    real_nodes,
    serving,
)
from tests.patience import PATIENCE

pytestmark = [native, pytest.mark.engine]

GROUP = f"{VARIANT}@group"


def alone(report: NodeReport) -> bool:
    """Whether the head serves the model by itself, too."""
    return any(e.id == VARIANT and e.state == "ready" for e in report.engines)


async def test_a_group_answers_as_a_single_machine_does(
    tmp_path: Path, smollm2: Path
) -> None:
    async with real_nodes(tmp_path, smollm2, "head", "left", "right") as nodes:
        head, left, right = nodes
        await head.until(alone)
        single = await head.complete(VARIANT)
        engine = await head.form(await left.worker(0.4), await right.worker(0.3))
        began = time.monotonic()
        grouped = await head.complete(GROUP)
        took = time.monotonic() - began

    print("group", grouped["timings"], "alone", single["timings"], took)
    assert {each.state for each in engine.group} == {"up"}
    assert engine.placement is not None
    assert engine.placement.memory.keys() >= {"left", "right"}
    assert grouped["choices"][0]["text"] == single["choices"][0]["text"]


SMALL = 250 * 2**20
"""Memory of a machine on which the model alone does not fit, beside the node itself."""


async def test_a_model_that_no_machine_has_room_for_is_served_by_three(
    tmp_path: Path, smollm2: Path
) -> None:
    with limited(3) as limits:
        names = ("head", "left", "right")
        async with real_nodes(tmp_path, smollm2, *names, limits=limits) as nodes:
            head, left, right = nodes
            report = await head.until(lambda report: bool(report.available))
            (refused,) = report.available
            workers = await left.worker(0.45), await right.worker(0.45)
            await head.form(*workers, context=512)
            answer = await head.complete(GROUP)
            used = [each.used() for each in nodes]

    assert not report.engines
    assert "needs" in refused.reason
    assert refused.layered is not None
    assert refused.layered.layers == 30
    assert answer["choices"][0]["text"].startswith(" Rome")
    print("MiB used:", [each // 2**20 for each in used])


@contextmanager
def limited(count: int) -> Generator[list[Path]]:
    """Limit the memory of machines, or skip the test."""
    with ExitStack() as stack:
        try:
            limits = stack.enter_context(memory_limits(count, SMALL))
        except OSError as error:
            pytest.skip(f"no cgroup can be made here: {error}")
        yield limits


BOUND = 25.0
"""Seconds within which every request has ended and the engine, too, once a member is
lost; a silent one is given six, and this machine is busy."""


def lost(report: NodeReport) -> bool:
    """Whether the group's engine has ended."""
    return not serving(report)


def busy(report: NodeReport) -> bool:
    """Whether the group has a request."""
    found = group(report)
    return found is not None and found.busy > 0


async def outcome(head: RealNode) -> str:
    """Ask for a long answer; return how that ended."""
    try:
        await head.complete(GROUP, 900)
    except (EdgeserveError, AssertionError, OSError) as error:
        return repr(error)
    return "whole"


async def losing(head: RealNode, lose: Callable[[], object]) -> tuple[str, str, float]:
    """Lose something during a request.

    Returns how the request ended, why the engine did, and how many seconds that took.
    """
    asking = asyncio.create_task(outcome(head))
    await head.until(busy)
    began = time.monotonic()
    lose()
    async with asyncio.timeout(BOUND):
        ended = await asking
        report = await head.until(lost)
    found = group(report)
    return ended, (found.reason or "") if found else "", time.monotonic() - began


async def test_whichever_member_is_lost_the_engine_ends_and_no_request_hangs(
    tmp_path: Path, smollm2: Path
) -> None:
    async with (
        real_nodes(tmp_path, smollm2, "head", "left", "right") as (head, left, right),
        cable(left.origin) as network,
    ):
        left.urls = (f"https://127.0.0.1:{network.near.port}",)
        workers = await left.worker(0.4), await right.worker(0.3)
        losses: dict[str, tuple[str, Callable[[], object], Callable[[], object]]] = {
            "its process is killed": ("left", left.kill_worker, mended),
            "its process freezes": ("right", right.freeze_worker, mended),
            "its network breaks": ("left", network.cut, network.mend),
            "its network is silent": ("left", network.freeze, network.thaw),
            "its node freezes": ("right", right.freeze, right.thaw),
            "its node is killed": ("left", left.kill, left.start),
            "the engine is killed": ("", head.kill_engine, mended),
        }
        for what, (name, lose, mend) in losses.items():
            began = time.monotonic()
            await head.form(*workers)
            formed = time.monotonic() - began
            how, why, seconds = await losing(head, lose)
            print(f"formed in {formed:.1f} s; {what}: {seconds:.1f} s, {why[:120]}")
            mend()
            assert how != "whole"
            assert name in why, what
            await all_known(left, right)
        await head.form(*workers)
        answer = await head.complete(GROUP)

    assert answer["choices"][0]["text"].startswith(" Rome")


def mended() -> None:
    """Do nothing: it is whole again by itself."""


async def all_known(*nodes: RealNode) -> None:
    """Wait until each can be a worker."""
    for each in nodes:
        await each.until(lambda report: bool(report.rpc))


async def test_only_the_ports_of_nodes_are_open_to_other_machines(
    tmp_path: Path, smollm2: Path
) -> None:
    flags = ("--host", "0.0.0.0")
    async with real_nodes(tmp_path, smollm2, "head", "left", flags=flags) as nodes:
        head, left = nodes
        await head.form(await left.worker(0.5))
        open_ports = {
            each.laddr[1]
            for node in nodes
            for process in (node.process, *node.process.children(recursive=True))
            for each in process.net_connections("inet")
            if each.status == psutil.CONN_LISTEN and each.laddr[0] != "127.0.0.1"
        }
        stranger = await told_without_proof(left.port)
        other = await told_with_another_token(tmp_path, left)

    assert open_ports == {head.port, left.port}
    assert b"401 Unauthorized" in stranger
    assert "fleet token" in other


async def told_without_proof(port: int) -> bytes:
    """Ask for a tunnel in TLS, but without any proof."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=fleet_context(), server_hostname=SERVER_NAME
    )
    body = encode(OpenTunnel(key="0" * 32))
    head = f"POST {RPC} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    async with asyncio.timeout(PATIENCE):
        answer = await reader.read()
    writer.close()
    return answer


async def told_with_another_token(folder: Path, node: RealNode) -> str:
    """Ask for a worker with another fleet's token."""
    token = folder / "other"
    token.write_text("token-of-another-fleet")
    channel = FleetChannel(FleetTokens(token))
    order = HostWorker(head="h", name="x", variant=VARIANT, memory=1, rpc="7.0.0")
    async with upstream(connect_seconds=PATIENCE, channel=channel) as ask:
        with pytest.raises(EdgeserveError) as refused:
            async with raw_stream(ask, node.origin, WORKERS, encode(order)):
                pass
    return str(refused.value)
