"""What a server has to do is known: by others, by us, and how much it takes at once."""

from __future__ import annotations

import asyncio

import pytest

from balancer.servers import polling
from edgeserve.cli.nodes.table import node_rows
from edgeserve.config.servers import ServerSetting
from edgeserve.wire import EngineReport
from tests.balancer.endpoint import CHAT, Endpoint, chat, endpoint, eventually
from tests.fakes.limited_server import LimitedServer, limited_server
from tests.fakes.node import fake_node
from tests.fakes.servers import OPENAI, VLLM, fake_server


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "EVERY_SECONDS", 0.02)


def engine(here: Endpoint) -> EngineReport:
    return here.balancer.state.current.candidates[0].engine


def busy(here: Endpoint) -> int:
    (each,) = here.balancer.state.current.candidates
    return here.balancer.state.slot_counts.busy(each.key)


async def asked(here: Endpoint, number: int) -> list[asyncio.Future[object]]:
    """Have so many requests at work."""
    return [
        asyncio.ensure_future(here.post(CHAT, chat(stream=True))) for _ in range(number)
    ]


async def looked_at_again(server: LimitedServer) -> None:
    """Wait until whole looks have begun and ended."""
    before = server.looked.count("/metrics")
    await eventually(lambda: server.looked.count("/metrics") >= before + 3)


async def test_others_requests_are_counted_and_ours_not_twice() -> None:
    gate = asyncio.Event()
    async with (
        limited_server(VLLM, slots=8, gate=gate, others=3) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        await eventually(lambda: busy(here) == 3)
        ours = await asked(here, 2)
        await eventually(lambda: server.running == 2)
        await looked_at_again(server)
        assert busy(here) == 5
        server.counts(others=1)
        await eventually(lambda: busy(here) == 3)
        gate.set()
        await asyncio.gather(*ours)
        await looked_at_again(server)
        assert busy(here) == 1


async def test_an_equal_sum_of_other_requests_is_news() -> None:
    gate = asyncio.Event()
    async with (
        limited_server(VLLM, slots=8, gate=gate) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        ours = await asked(here, 2)
        await eventually(lambda: server.running == 2)
        await looked_at_again(server)
        assert busy(here) == 2
        gate.set()
        await asyncio.gather(*ours)
        server.counts(others=2)

        await eventually(lambda: busy(here) == 2)


async def test_the_queue_waits_where_others_fill_a_server() -> None:
    async with limited_server(VLLM, slots=8, others=9) as server:
        known = ServerSetting(url=server.url, width=8)
        async with endpoint(server_tables=(known,)) as here:
            await eventually(lambda: busy(here) == 9)
            ours = await asked(here, 1)
            await eventually(lambda: here.balancer.state.queue.waiting == 1)
            assert not server.asked
            server.counts(others=7)
            await asyncio.gather(*ours)

    assert server.asked


async def load(here: Endpoint, clients: int, until: asyncio.Event) -> None:
    """Have so many clients ask again and again."""

    async def client() -> None:
        while not until.is_set():
            assert (await here.post(CHAT, chat(stream=True))).status == 200

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())


async def test_a_width_that_nothing_tells_is_learned_and_shown() -> None:
    until = asyncio.Event()
    async with (
        limited_server(OPENAI, slots=2, token_seconds=0.03) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        assert (engine(here).slots, engine(here).served.width) == (8, "assumed")  # type: ignore[union-attr]
        loading = asyncio.ensure_future(load(here, 8, until))
        await eventually(lambda: engine(here).slots <= 3)
        until.set()
        await loading
        found = (await here.get("/edgeserve/v1/nodes")).json
        (row,) = node_rows(found["nodes"] if isinstance(found, dict) else found)

    assert engine(here).served.width == "learned"  # type: ignore[union-attr]
    assert "at once, as its answers show" in " ".join(row.below)


async def test_what_waits_in_the_server_shows_its_width_without_our_answers() -> None:
    gate = asyncio.Event()
    async with (
        limited_server(VLLM, slots=4, gate=gate) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        first = await asked(here, 1)
        gate.set()
        await asyncio.gather(*first)
        gate.clear()
        ours = await asked(here, 6)

        await eventually(lambda: engine(here).slots == 4)
        gate.set()
        await asyncio.gather(*ours)


async def test_a_width_in_the_settings_is_kept() -> None:
    async with limited_server(OPENAI, slots=1) as server:
        known = ServerSetting(url=server.url, width=4)
        async with endpoint(server_tables=(known,)) as here:
            for _ in range(3):
                await asyncio.gather(*await asked(here, 6))

            assert engine(here).slots == 4
            assert engine(here).served.width == "set"  # type: ignore[union-attr]


async def test_servers_are_not_measured_while_nodes_are() -> None:
    async with (
        fake_server(OPENAI) as server,
        fake_node("pi") as node,
        endpoint(node, servers=(server.url,), calibrate=True) as here,
    ):
        await eventually(lambda: bool(node.told))
        models = here.balancer.state.predictive.fleet_model.all()
        await eventually(lambda: any(each.learner.calibrated for each in models))

        assert not server.asked


async def test_a_probe_of_a_server_has_only_what_strict_ones_take() -> None:
    failing = (500, {"error": {"message": "EngineCore died"}})
    async with (
        fake_server(OPENAI, posts={CHAT: failing}) as server,
        endpoint(servers=(server.url,), attempts=1) as here,
    ):
        (each,) = here.balancer.state.current.candidates
        here.balancer.state.breakers.question(each.key)
        await eventually(lambda: bool(server.asked))

    path, _, body = server.asked[0]
    assert path == CHAT
    assert body.keys() == {"model", "messages", "max_tokens"}
    assert body["max_tokens"] == 1


async def test_a_server_that_refuses_gets_fewer_at_once_and_what_it_refused_later() -> (
    None
):
    gate = asyncio.Event()
    async with (
        limited_server(OPENAI, slots=8, gate=gate) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        gate.set()
        await asyncio.gather(*await asked(here, 1))
        gate.clear()
        running = await asked(here, 3)
        await eventually(lambda: server.running == 3)
        server.posts[CHAT] = (429, {"error": "Model is overloaded"})
        waits = await asked(here, 1)
        await eventually(lambda: engine(here).slots == 3)
        del server.posts[CHAT]
        gate.set()

        for each in await asyncio.gather(*running, *waits):
            assert each.status == 200  # type: ignore[attr-defined]
