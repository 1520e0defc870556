"""No more connections than open files allow, from any client."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from edgeserve.errors import FleetBusy, NoRoom
from edgeserve.http import Limits, Request, Response
from edgeserve.http.server.admission import ConnectionCounts, TooMany
from edgeserve.http.sockets import most_connections
from edgeserve.runtime.clock import NEVER
from tests.edgeserve.http.talk import connected, echo, serving


@dataclass(eq=False)
class Visitor:
    peer: str = "10.0.0.1"
    heard: bool = True
    idle_until: float = NEVER


def full(*there: Visitor, per_address: int = 100) -> ConnectionCounts[Visitor]:
    counts: ConnectionCounts[Visitor] = ConnectionCounts(len(there), per_address)
    for each in there:
        assert counts.enter(each) is None
    return counts


def test_the_connection_idle_for_longest_before_its_first_request_is_closed() -> None:
    busy, resting = Visitor(), Visitor(idle_until=1.0)
    first, second = (Visitor(heard=False, idle_until=9.0) for _ in range(2))

    assert full(busy, resting, first, second).enter(Visitor(heard=False)) is first


def test_then_the_one_idle_for_longest_between_two_requests() -> None:
    busy, late, early = Visitor(), Visitor(idle_until=9.0), Visitor(idle_until=1.0)

    assert full(busy, late, early).enter(Visitor(heard=False)) is early


def test_where_all_are_being_served_a_new_one_is_refused_for_now() -> None:
    counts = full(Visitor(), Visitor("10.0.0.2"))

    with pytest.raises(NoRoom):
        counts.enter(Visitor("10.0.0.3", heard=False))
    with pytest.raises(TooMany):
        counts.enter(Visitor("10.0.0.4", heard=False))

    assert len(counts) == 2


def test_one_address_with_too_many_gets_an_error() -> None:
    counts = full(*(Visitor() for _ in range(9)), per_address=9)

    with pytest.raises(FleetBusy, match=r"10\.0\.0\.1 has too many"):
        counts.enter(Visitor())


def test_a_connection_that_leaves_twice_is_counted_once() -> None:
    one, other = Visitor(), Visitor()
    counts = full(one, other)
    counts.leave(one)
    counts.leave(one)

    assert len(counts) == 1
    assert counts.enter(one) is None


@pytest.mark.parametrize("files", [64, 256, 1024, 20_000, 65536])
def test_each_client_can_have_an_upstream_and_some_files_are_left(files: int) -> None:
    most = most_connections(files)

    assert 2 * most <= files - min(files // 4, 512)
    assert most >= files // 3


async def test_idle_connections_do_not_keep_others_out() -> None:
    limits = Limits(connections=4)
    async with serving(limits=limits) as port:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
        for _ in range(3):
            async with connected(port) as client:
                client.post(b"served")
                assert (await client.answer()).body == b"served"
        for _, writer in idle:
            writer.transport.abort()


async def test_half_a_head_keeps_no_other_client_out() -> None:
    async with (
        serving(limits=Limits(connections=2)) as port,
        connected(port) as one,
        connected(port) as two,
    ):
        for each in (one, two):
            each.say("POST /v1/x HT")
            await each.writer.drain()
        async with connected(port) as client:
            client.post(b"served")
            assert (await client.answer()).body == b"served"


async def test_a_connection_that_is_being_served_is_not_closed_for_another() -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def handler(request: Request, reply: Response) -> None:
        begun.set()
        await go.wait()
        await echo(request, reply)

    async with (
        serving(handler, limits=Limits(connections=1)) as port,
        connected(port) as client,
    ):
        client.post(b"first")
        await begun.wait()
        async with connected(port) as other:
            refused = await other.answer()
        go.set()
        answered = await client.answer()

    assert refused.status == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert b'"code": "no_room"' in refused.body
    assert answered.body == b"first"
