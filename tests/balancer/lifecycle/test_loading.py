"""A balancer in front of nodes that load engines when they are told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from balancer import response
from balancer.lifecycle.events import EventKind
from balancer.lifecycle.placement import Load, Unload
from edgeserve.orders.engines import LoadEngine
from edgeserve.wire import EngineReport
from tests.balancer.endpoint import CHAT, Endpoint, chat, endpoint, eventually
from tests.fakes.llama import Behaviour
from tests.fakes.node import FakeNode, fake_node
from tests.fakes.reports import an_engine
from tests.patience import PATIENCE

DEADLINE = "x-edgeserve-deadline-ms"


def absent(variant: str, **fields: Any) -> EngineReport:
    usual = {"state": "absent", "load_seconds": 0.2, "memory": 2**30}
    return an_engine(variant, **usual | fields)  # type: ignore[arg-type]


@asynccontextmanager
async def fleet(
    *names: str,
    engine: EngineReport | None = None,
    others: tuple[EngineReport, ...] = (),
    room: int | None = None,
    behaviour: Behaviour | None = None,
    **settings: Any,
) -> AsyncGenerator[tuple[Endpoint, list[FakeNode]]]:
    """An endpoint before nodes that have `cold` on their disks."""
    async with AsyncExitStack() as stack:
        nodes: list[FakeNode] = []
        for name in names or ("pi",):
            running = fake_node(
                name, behaviour, engine=engine or absent("cold:Q4_1"), others=others
            )
            node = await stack.enter_async_context(running)
            node.loads.room = room
            nodes.append(node)
        balancer = await stack.enter_async_context(endpoint(*nodes, **settings))
        await stack.enter_async_context(asyncio.timeout(PATIENCE))
        yield balancer, nodes


async def ask(balancer: Endpoint, model: str, **fields: Any) -> int:
    body = chat(model=model, max_tokens=4, **fields)
    return (await balancer.post(CHAT, body)).status


def kinds(balancer: Endpoint) -> list[EventKind]:
    return [each.kind for each in balancer.balancer.loader.events.latest()]


async def test_fifty_clients_for_one_cold_model_make_one_load() -> None:
    async with fleet() as (balancer, [node]):
        node.loads.hold()
        asking = [asyncio.ensure_future(ask(balancer, "cold")) for _ in range(50)]
        await eventually(lambda: balancer.balancer.state.queue.waiting == 50)
        node.loads.release()
        answered = await asyncio.gather(*asking)

    assert answered == [200] * 50
    assert [type(each) for each in node.loads.orders] == [LoadEngine]
    assert kinds(balancer) == ["load_ordered", "loaded"]


async def test_a_model_that_is_not_loaded_is_listed_as_one_to_call() -> None:
    async with fleet() as (balancer, _):
        listed = (await balancer.get("/v1/models")).json["data"]

    assert [(e["id"], e["state"]) for e in listed] == [("cold", "available")]


async def test_requests_without_a_model_go_to_the_one_that_is_loaded() -> None:
    loaded = an_engine("warm:Q4_1")
    async with fleet(engine=loaded, others=(absent("cold:Q4_1"),)) as (
        balancer,
        [node],
    ):
        body = {k: v for k, v in chat(max_tokens=4).items() if k != "model"}
        answer = await balancer.post(CHAT, body)

    assert answer.status == 200
    assert node.loads.orders == []


async def test_embeddings_have_their_model_loaded_too() -> None:
    engine = absent("embed:Q8_0", abilities=("embeddings",))
    async with fleet(engine=engine, behaviour=Behaviour(embeddings=True)) as (
        balancer,
        _,
    ):
        body = {"model": "embed", "input": "hello"}
        answer = await balancer.post("/v1/embeddings", body)

    assert answer.status == 200


async def test_a_loaded_engine_is_used_rather_than_another_one_loaded() -> None:
    warm = an_engine("cold:Q4_1")
    async with fleet(engine=warm, others=(absent("cold:Q8_0"),)) as (balancer, [node]):
        answered = await asyncio.gather(*(ask(balancer, "cold") for _ in range(8)))

    assert answered == [200] * 8
    assert node.loads.orders == []


async def test_a_model_is_swapped_for_one_that_has_no_room_beside_it() -> None:
    warm = an_engine("warm:Q4_1", load_seconds=0.2)
    async with fleet(engine=warm, others=(absent("cold:Q4_1"),), room=1) as (
        balancer,
        [node],
    ):
        node.change("warm:Q4_1")
        first = await ask(balancer, "warm")
        second = await ask(balancer, "cold")
        again = await ask(balancer, "warm")

    assert [first, second, again] == [200, 200, 200]
    assert node.loads.loads == ["cold:Q4_1", "warm:Q4_1"]
    assert "unloaded" in kinds(balancer)


async def test_mixed_requests_that_are_sent_at_once_make_one_load() -> None:
    """The model that is loaded serves all of its requests, then the other one does."""
    warm = an_engine("a:Q4_1", load_seconds=0.2)
    slow = Behaviour(decode=400)
    async with fleet(
        engine=warm, others=(absent("b:Q4_1"),), room=1, behaviour=slow
    ) as (balancer, [node]):
        node.change("a:Q4_1")
        asking = [ask(balancer, model) for _ in range(20) for model in "ab"]
        answered = await asyncio.gather(*asking)

    assert answered == [200] * 40
    assert node.loads.loads == ["b:Q4_1"]


async def test_a_node_that_refuses_is_passed_over_for_another() -> None:
    async with fleet("pi", "nuc") as (balancer, [pi, nuc]):
        pi.loads.refuses = "does_not_fit"
        nuc.change("cold:Q4_1", load_seconds=5.0)  # the second choice
        await balancer.until(
            lambda fleet: any(
                each.load_seconds == 5.0
                for node in fleet.nodes
                for each in node.report.engines
            )
        )
        status = await ask(balancer, "cold")

    assert status == 200
    assert len(pi.loads.orders) == 1
    assert nuc.loads.loads == ["cold:Q4_1"]
    assert kinds(balancer) == [
        "load_ordered", "load_failed", "load_ordered", "loaded"
    ]  # fmt: skip


async def test_where_no_node_can_load_a_model_its_requests_are_refused() -> None:
    async with fleet() as (balancer, [node]):
        node.loads.fails = "the file is damaged"
        answer = await balancer.post(CHAT, chat(model="cold"))

    assert answer.status == 503
    assert "the file is damaged" in answer.error
    assert "retry-after" in answer.headers


async def test_an_engine_that_is_pinned_out_of_room_is_not_asked_for() -> None:
    pinned = an_engine("warm:Q4_1", pinned=True)
    cold = absent("cold:Q4_1", evicts=("warm:Q4_1",))
    async with fleet(engine=pinned, others=(cold,)) as (balancer, [node]):
        answer = await balancer.post(CHAT, chat(model="cold"))

    assert answer.status == 503
    assert "pinned" in answer.error
    assert node.loads.orders == []


async def test_where_a_node_is_lost_while_it_loads_another_one_loads() -> None:
    async with fleet("pi", "nuc") as (balancer, nodes):
        for node in nodes:
            node.loads.hold()
        asking = asyncio.ensure_future(ask(balancer, "cold"))
        await eventually(lambda: any(node.loads.loads for node in nodes))
        lost, other = sorted(nodes, key=lambda node: not node.loads.loads)
        lost.hush()
        lost.change("cold:Q4_1", state="quarantined")  # when it is back
        other.loads.release()

        assert await asking == 200

    assert other.loads.loads == ["cold:Q4_1"]


async def test_a_deadline_that_a_load_cannot_meet_is_refused_at_once() -> None:
    async with fleet(engine=absent("cold:Q4_1", load_seconds=30.0)) as (
        balancer,
        [node],
    ):
        node.loads.hold()
        answer = await balancer.post(CHAT, chat(model="cold"), {DEADLINE: "5000"})
        await eventually(lambda: node.loads.loads == ["cold:Q4_1"])

    assert answer.status == 503
    assert answer.json["error"]["code"] == "model_loading"
    assert 25 <= int(answer.headers["retry-after"]) <= 40


async def test_a_deadline_that_a_load_can_meet_is_waited_for() -> None:
    async with fleet() as (balancer, _):
        answer = await balancer.post(CHAT, chat(model="cold"), {DEADLINE: "60000"})

    assert answer.status == 200


async def test_an_engine_that_fell_idle_keeps_its_learned_speed() -> None:
    async with fleet() as (balancer, [node]):
        models = balancer.balancer.state.predictive.fleet_model
        for _ in range(3):
            assert await ask(balancer, "cold", max_completion_tokens=12) == 200
        [engine] = models.all()
        learned = engine.learner
        node.change("cold:Q4_1", state="absent")
        await eventually(lambda: models.all() == [])
        assert await ask(balancer, "cold") == 200
        [engine] = models.all()

    assert learned.samples
    assert engine.learner is learned


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response, "EVERY_SECONDS", 0.02)


@pytest.mark.usefixtures("often")
async def test_a_stream_is_told_what_loads_where_and_for_how_long() -> None:
    engine = absent("cold:Q4_1", load_seconds=24.0)
    async with fleet(engine=engine) as (balancer, [node]):
        node.loads.hold()
        body = json.dumps(chat(model="cold", stream=True, max_tokens=2)).encode()
        async with balancer.session.post(CHAT, data=body) as answer:
            line = b""
            while not line.startswith(b": loading"):
                line = await answer.content.readline()
            node.loads.release()
            rest = await answer.read()

    assert line == b": loading cold:Q4_1 on pi, about 12 s\n"
    assert rest.endswith(b"data: [DONE]\n\n")


async def test_the_explanation_of_a_request_that_waits_names_each_load() -> None:
    other = absent("cold:Q8_0", load_seconds=24.0)
    async with fleet(engine=absent("cold:Q4_1"), others=(other,)) as (
        balancer,
        [node],
    ):
        node.loads.hold()
        node.change("cold:Q8_0", state="loading", progress=0.5)
        asking = asyncio.ensure_future(ask(balancer, "cold"))
        await eventually(lambda: balancer.balancer.state.queue.waiting == 1)
        [record] = (await balancer.get("/edgeserve/v1/requests")).json
        shown = await balancer.get(f"/edgeserve/v1/requests/{record['id']}")
        node.change("cold:Q8_0", state="ready", epoch=1)
        assert await asking == 200

    reasons = {each["variant"]: each["reason"] for each in candidates_of(shown.json)}
    assert reasons["cold:Q4_1"] == "not loaded here"
    assert reasons["cold:Q8_0"] == "loading, about 12 s left"


def candidates_of(shown: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = shown["candidates"]
    return found


async def test_what_is_wished_for_is_ordered_once() -> None:
    async with fleet() as (balancer, [node]):
        loader, state = balancer.balancer.loader, balancer.balancer.state
        [cold] = state.current.candidates

        def wishes(_: float) -> list[Load | Unload]:
            [now] = state.current.candidates
            absent = now.engine.state == "absent"
            return [Load(to=cold, why="scaled up")] if absent else []

        node.loads.hold()
        loader.wishes.append(wishes)
        node.change("cold:Q4_1", context=8192)  # any change makes it look
        await eventually(lambda: bool(node.loads.loads))
        loader.wishes.clear()
        node.loads.release()
        await eventually(lambda: "loaded" in kinds(balancer))
        loader.order(Unload(to=cold, why="calm"), loop_time())
        await eventually(lambda: "unloaded" in kinds(balancer))

    assert len(node.loads.orders) == 2


def loop_time() -> float:
    return asyncio.get_running_loop().time()


async def test_engines_that_are_busy_with_others_are_asked_for_again() -> None:
    async with fleet() as (balancer, [node]):
        node.loads.refuses = "engines_busy"
        asking = asyncio.ensure_future(ask(balancer, "cold"))
        await eventually(lambda: bool(node.loads.orders))
        node.loads.refuses = ""

        assert await asking == 200

    assert len(node.loads.orders) == 2
