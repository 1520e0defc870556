from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import aiohttp
import pytest
from aiohttp import web

from edgeserve.http.types import Origin
from edgeserve.orders.log import LOG, NodeLog
from edgeserve.wire import NodeReport, decode
from tests.node.api.test_inference import TOKEN, serving
from tests.node.building import PretendSupervisor, a_node, an_engine
from tests.patience import PATIENCE

NOWHERE = Origin("127.0.0.1", 9)


def an_idle_engine(variant: str) -> PretendSupervisor:
    return PretendSupervisor(an_engine(variant), NOWHERE)


async def test_the_report_says_what_the_node_is() -> None:
    state = a_node(an_idle_engine("tiny:Q4_0"), problems=("huge.gguf: too large",))
    async with serving(state) as client, client.get("/edgeserve/v1/node") as answer:
        report = decode(await answer.read(), NodeReport)

    assert report == state.report()
    assert report.problems == ("huge.gguf: too large",)


async def test_only_what_can_be_called_is_listed() -> None:
    loading = an_idle_engine("other:Q4_0")
    loading.state = "loading"
    async with (
        serving(a_node(an_idle_engine("tiny:Q4_0"), loading)) as client,
        client.get("/v1/models") as answer,
    ):
        listed = await answer.json()

    assert [each["id"] for each in listed["data"]] == ["tiny", "tiny:Q4_0"]


async def test_health_needs_no_token_and_names_the_engines() -> None:
    state = a_node(an_idle_engine("tiny:Q4_0"))
    async with serving(state, TOKEN) as client, client.get("/health") as answer:
        body = await answer.json()

    assert answer.status == 200
    assert body == {"status": "ok", "engines": {"tiny:Q4_0": "ready"}}


async def test_events_stream_past_proxies_that_buffer() -> None:
    async with (
        serving(a_node()) as client,
        client.get("/edgeserve/v1/events") as answer,
        asyncio.timeout(PATIENCE),
    ):
        line = await answer.content.readline()

    assert line == b"event: report\n"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.content_type == "text/event-stream"


async def test_a_follower_that_leaves_is_forgotten() -> None:
    state = a_node()
    async with serving(state) as client:
        async with client.get("/edgeserve/v1/events") as answer:
            await answer.content.readline()
        async with asyncio.timeout(PATIENCE):
            while state.feed._followers:
                await asyncio.sleep(0.005)


async def test_a_stream_whose_peer_stops_first_ends_without_a_word(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write = web.StreamResponse.write

    async def closes(answer: web.StreamResponse, data: bytes) -> None:
        assert answer._req is not None
        assert answer._req.transport is not None
        answer._req.transport.close()
        await write(answer, data)

    monkeypatch.setattr(web.StreamResponse, "write", closes)
    async with serving(a_node()) as client, asyncio.timeout(PATIENCE):
        with suppress(aiohttp.ClientError):
            async with client.get("/edgeserve/v1/events") as answer:
                await answer.read()

    assert [each for each in caplog.records if each.levelno > logging.INFO] == []


async def test_the_log_needs_the_token() -> None:
    async with serving(a_node(), TOKEN) as client:
        async with client.get(LOG) as refused:
            pass
        known = {"authorization": f"Bearer {TOKEN}"}
        async with client.get(LOG, headers=known) as answer:
            found = decode(await answer.read(), NodeLog)

    assert refused.status == 401
    assert (answer.status, found.next) == (200, "process-0")


async def test_an_unknown_path_has_the_same_shape_as_every_error() -> None:
    async with serving(a_node()) as client, client.get("/nothing") as answer:
        body = await answer.json()

    assert answer.status == 404
    assert body["error"]["code"] == "not_found"
