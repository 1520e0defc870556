"""Every kind of server may die, or its client leave: nothing is lost or doubled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from balancer.failover import watchdog
from balancer.probes import liveness
from balancer.servers import polling
from edgeserve.config.servers import ServerSetting
from tests.balancer.endpoint import CHAT, chat, endpoint, eventually, everyone_up
from tests.balancer.servers.reading import events, text
from tests.fakes.dialects.base import SAID, Dialect
from tests.fakes.dialects.running import DIALECTS, FakeDialect, fake_dialect
from tests.fakes.dialects.server import Answer, Asked, light_server
from tests.fakes.node import fake_node
from tests.fakes.reports import an_engine
from tests.patience import PATIENCE

every = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda each: each.name)


def asks(dialect: Dialect, **fields: Any) -> dict[str, Any]:
    return chat(model=dialect.model, stream=True, **fields)


@every
async def test_a_client_that_leaves_frees_its_slot_at_the_server(
    dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "EVERY_SECONDS", 0.05)
    gate = asyncio.Event()
    async with fake_dialect(dialect, gate=gate) as server:
        known = ServerSetting(url=server.url, width=dialect.busy + 1)
        async with endpoint(server_tables=(known,)) as here:
            asking = asyncio.ensure_future(here.post(CHAT, asks(dialect)))
            await eventually(lambda: server.server.writing == 1)
            asking.cancel()
            await eventually(lambda: server.server.left == 1)
            assert server.server.writing == 0
            gate.set()
            assert text((await here.post(CHAT, asks(dialect))).body) == SAID


@every
@pytest.mark.parametrize("stream", [True, False])
async def test_a_node_answers_when_it_dies_before_its_first_text(
    dialect: Dialect, *, stream: bool
) -> None:
    async with (
        fake_dialect(dialect, cut=1) as server,
        fake_node("pi") as node,
        endpoint(node, servers=(server.url,)) as here,
    ):
        answered = await here.post(CHAT, chat(stream=stream))

    assert server.asked
    assert answered.status == 200
    assert [each.path for each in node.told] == [CHAT]
    if stream:
        assert events(answered.body)[-1] == "[DONE]"
        assert not text(answered.body).startswith(SAID[:5] * 2)


@every
async def test_it_answers_when_a_node_dies_before_its_first_text(
    dialect: Dialect,
) -> None:
    async with fake_node("pi", engine=an_engine(context=9000)) as node:
        node.script.append((b"", "broken"))
        async with fake_dialect(dialect) as server:
            known = ServerSetting(url=server.url, last_resort=True)
            async with endpoint(node, server_tables=(known,)) as here:
                answered = await here.post(CHAT, chat(stream=True))

    assert text(answered.body) == SAID
    assert len(server.asked) == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_a_node_answers_what_a_server_takes_and_never_answers(
    monkeypatch: pytest.MonkeyPatch, *, stream: bool
) -> None:
    monkeypatch.setattr(watchdog, "EVERY_SECONDS", 0.02)
    monkeypatch.setattr(watchdog, "QUIET_SECONDS", 0.05)
    monkeypatch.setattr(liveness, "SECONDS", 0.1)
    monkeypatch.setattr(liveness, "PAUSE", 0.02)
    ended, taken, dialect = asyncio.Event(), list[Asked](), Dialect()

    async def handle(asked: Asked) -> Answer:
        if asked.method == "POST":
            taken.append(asked)
            await ended.wait()
        return dialect.answer(asked)

    async with (
        light_server(handle) as server,
        fake_node("pi") as node,
        endpoint(node, servers=(server.url,)) as here,
        asyncio.timeout(PATIENCE),
    ):
        answered = await here.post(CHAT, chat(stream=stream))
        looked_well = everyone_up(here.balancer.state.current.fleet)
        ended.set()

    assert taken[0].json["messages"] == chat()["messages"]
    assert looked_well
    assert answered.status == 200
    assert answered.headers["x-edgeserve-node"] == "pi"


def cut_of(dialect: Dialect) -> int:
    """Return after how many events of a stream the first part of its text is out."""
    return len(dialect.begins()) + 1


@every
async def test_what_breaks_off_in_the_middle_is_an_error_and_not_half_an_answer(
    dialect: Dialect,
) -> None:
    async with (
        fake_dialect(dialect, cut=cut_of(dialect)) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        streamed = await here.post(CHAT, asks(dialect))
        whole = await here.post(CHAT, {**asks(dialect), "stream": False})

    broke(server, events(streamed.body), text(streamed.body))
    assert whole.status >= 500
    assert whole.error


def broke(server: FakeDialect, all_events: list[Any], said: str) -> None:
    """Check that a stream ends with an error, its text neither lost nor doubled."""
    assert server.asked
    assert said == "Hello"
    assert all_events[-1]["error"]["message"]
    assert "[DONE]" not in all_events


@every
async def test_a_server_that_is_started_again_is_used_again(dialect: Dialect) -> None:
    async with (
        fake_dialect(dialect) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        assert text((await here.post(CHAT, asks(dialect))).body) == SAID
        await server.server.stop()
        await server.server.start()
        assert text((await here.post(CHAT, asks(dialect))).body) == SAID
