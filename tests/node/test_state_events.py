from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
import pytest

from edgeserve.http.types import Origin
from edgeserve.wire import EngineChange, NodeReport, changed, decode
from node import state as node_state
from node.state import NodeState
from tests.node.building import PretendSupervisor, a_node, an_engine
from tests.patience import PATIENCE

NOWHERE = Origin("127.0.0.1", 9)


async def heard(stream: AsyncGenerator[bytes]) -> tuple[str, bytes]:
    async with asyncio.timeout(PATIENCE):
        frame = await anext(stream)
    event, data = frame.removesuffix(b"\n\n").split(b"\n")
    return event.removeprefix(b"event: ").decode(), data.removeprefix(b"data: ")


def two_engines() -> tuple[NodeState, PretendSupervisor]:
    first = PretendSupervisor(an_engine("a:Q4_0"), NOWHERE)
    return a_node(first, PretendSupervisor(an_engine("b:Q4_0"), NOWHERE)), first


async def test_a_follower_gets_a_full_report_first() -> None:
    state, _ = two_engines()
    async with aclosing(state.feed.follow()) as stream:
        event, data = await heard(stream)

    assert event == "report"
    assert decode(data, NodeReport) == state.report()


async def test_a_change_of_one_engine_is_sent_alone() -> None:
    state, supervisor = two_engines()
    async with aclosing(state.feed.follow()) as stream:
        await heard(stream)
        with supervisor.claim():
            state.feed.engine_changed("a:Q4_0")
            event, data = await heard(stream)

    assert event == "engine"
    assert decode(data, EngineChange).engine == an_engine("a:Q4_0", busy=1)


async def test_a_burst_of_changes_is_sent_as_its_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(node_state, "HEARTBEAT_SECONDS", 0.2)
    state, supervisor = two_engines()
    async with aclosing(state.feed.follow()) as stream:
        await heard(stream)
        with supervisor.claim():
            state.feed.engine_changed("a:Q4_0")
        state.feed.engine_changed("a:Q4_0")
        told = [await heard(stream), await heard(stream)]

    assert decode(told[0][1], EngineChange).engine.busy == 0
    assert told[1][0] == "heartbeat"


async def test_changes_of_one_engine_keep_their_distance() -> None:
    state, _ = two_engines()
    loop = asyncio.get_running_loop()
    async with aclosing(state.feed.follow()) as stream:
        await heard(stream)
        state.feed.engine_changed("a:Q4_0")
        await heard(stream)
        before = loop.time()
        state.feed.engine_changed("a:Q4_0")
        event, _ = await heard(stream)

    assert event == "engine"
    assert loop.time() - before >= node_state.COALESCE_SECONDS * 0.9


async def test_a_silent_node_still_shows_that_it_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(node_state, "HEARTBEAT_SECONDS", 0.01)
    state, _ = two_engines()
    async with aclosing(state.feed.follow()) as stream:
        await heard(stream)

        assert [(await heard(stream))[0] for _ in range(3)] == ["heartbeat"] * 3


async def test_a_shutdown_is_sent_at_once() -> None:
    state, _ = two_engines()
    async with aclosing(state.feed.follow()) as stream:
        await heard(stream)
        state.leave()
        _, data = await heard(stream)

    assert decode(data, NodeReport).state == "draining"


async def test_a_shutdown_is_sent_though_the_feed_closes_at_once() -> None:
    state, _ = two_engines()
    async with aclosing(state.feed.follow()) as stream:
        await heard(stream)
        state.feed.engine_changed("a:Q4_0")
        await heard(stream)
        state.leave()
        state.feed.close()
        _, data = await heard(stream)

    assert decode(data, NodeReport).state == "draining"


async def test_a_closed_feed_ends_its_streams() -> None:
    state, _ = two_engines()
    async with aclosing(state.feed.follow()) as stream:
        await heard(stream)
        state.feed.close()
        async with asyncio.timeout(PATIENCE):
            rest = [frame async for frame in stream]

    assert all(b"event: heartbeat" not in frame for frame in rest)


async def test_a_follower_that_left_is_forgotten() -> None:
    state, _ = two_engines()
    async with aclosing(state.feed.follow()) as stream:
        await heard(stream)

        assert len(state.feed._followers) == 1

    assert not state.feed._followers


async def test_an_engine_that_is_gone_is_not_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(node_state, "HEARTBEAT_SECONDS", 0.2)
    state, _ = two_engines()
    async with aclosing(state.feed.follow()) as stream:
        await heard(stream)
        state.feed.engine_changed("gone:Q4_0")
        event, _ = await heard(stream)

    assert event == "heartbeat"


def test_a_report_travels_and_comes_back() -> None:
    state, _ = two_engines()
    report = state.report()

    assert decode(msgspec.json.encode(report), NodeReport) == report


async def test_who_asks_for_changes_gets_what_changed_of_a_report() -> None:
    state, supervisor = two_engines()
    async with aclosing(state.feed.follow(changes=True)) as stream:
        _, whole = await heard(stream)
        with supervisor.claim():
            state.feed.engine_changed("a:Q4_0")
            await heard(stream)
            state.problems = ("the disk is full",)
            state.feed.report_changed()
            event, data = await heard(stream)
        state.feed.report_changed()  # the engine is idle again
        _, last = await heard(stream)

    assert event == "change"
    assert msgspec.json.decode(data) == {"problems": ["the disk is full"]}
    assert changed(changed(decode(whole, NodeReport), data), last) == state.report()


async def test_another_id_is_told_in_a_whole_report() -> None:
    state, _ = two_engines()
    async with aclosing(state.feed.follow(changes=True)) as stream:
        await heard(stream)
        state.instance = "another process"
        state.feed.report_changed()
        event, _ = await heard(stream)

    assert event == "report"


def test_a_change_cannot_claim_another_id() -> None:
    state, _ = two_engines()
    report = state.report()

    assert changed(report, b'{"id":"x","protocol":9,"of-later-releases":1}') == report
