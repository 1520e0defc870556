"""Requests that name a route, through a whole balancer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from balancer.clients.keys import ClientKey, key_id
from balancer.clients.store import add_key, store_in
from balancer.request import read_request
from edgeserve.config.routes import ModelRoute
from edgeserve.errors import FleetBusy, NodeLost
from edgeserve.openai import ROUTES
from tests.balancer.broken_streams import Engine
from tests.balancer.endpoint import (
    CHAT,
    Answered,
    Endpoint,
    chat,
    endpoint,
    eventually,
)
from tests.fakes.node import FakeNode, fake_node
from tests.fakes.reports import an_engine

ASSISTANT = ModelRoute(name="assistant", models=("big", "small"))
BIG, SMALL = "big:F16", "small:Q4_1"


@asynccontextmanager
async def two(
    *routes: ModelRoute, big: Any = None, **settings: Any
) -> AsyncGenerator[tuple[Endpoint, FakeNode, FakeNode]]:
    """A balancer in front of a node with the big and one with the small model."""
    async with (
        fake_node("gpu", engine=big or an_engine(BIG, slots=1)) as first,
        fake_node("pi") as second,
        endpoint(first, second, routes=routes or (ASSISTANT,), **settings) as balancer,
    ):
        yield balancer, first, second


def told(answer: Answered) -> tuple[str, str, str]:
    return tuple(
        answer.headers[f"x-edgeserve-{name}"]
        for name in ("route", "model", "route-reason")
    )  # type: ignore[return-value]  # there are three


async def record_of(balancer: Endpoint, answer: Answered) -> dict[str, Any]:
    id_ = answer.headers["x-edgeserve-request-id"]
    found: dict[str, Any] = (await balancer.get(f"/edgeserve/v1/requests/{id_}")).json
    return found


@pytest.mark.parametrize("stream", [False, True])
async def test_the_first_model_of_a_route_answers(stream: bool) -> None:
    async with two() as (balancer, gpu, _):
        answer = await balancer.post(CHAT, chat(model="Assistant", stream=stream))

    assert answer.status == 200
    assert told(answer) == ("assistant", BIG, "first choice")
    assert gpu.llama.requests[0].body["model"] == BIG


async def test_a_plain_model_has_no_route() -> None:
    async with two() as (balancer, *_):
        answer = await balancer.post(CHAT, chat())
        record = await record_of(balancer, answer)

    assert "x-edgeserve-route" not in answer.headers
    assert record["route"] is None


async def test_an_alias_means_its_model() -> None:
    alias = ModelRoute(name="gpt-4o", models=("small",))
    async with two(alias) as (balancer, *_):
        answer = await balancer.post(CHAT, chat(model="gpt-4o"))

    assert told(answer)[:2] == ("gpt-4o", SMALL)


@pytest.mark.parametrize(
    "change",
    [
        {"state": "quarantined", "reason": "it crashed"},
        {"state": "absent", "load_seconds": 60.0},
        {"state": "loading", "load_seconds": 60.0, "progress": 0.5},
        {"state": "failed"},
    ],
)
async def test_a_model_that_is_away_is_passed_over_and_why_says_so(
    change: dict[str, Any],
) -> None:
    async with two() as (balancer, gpu, _):
        gpu.say(**change)
        state = change["state"]
        await balancer.until(
            lambda fleet: any(
                each.state == state
                for node in fleet.nodes
                for each in node.report.engines
            )
        )
        answer = await balancer.post(CHAT, chat(model="assistant"))
        record = await record_of(balancer, answer)

    assert told(answer)[:2] == ("assistant", SMALL)
    assert told(answer)[2].startswith("big is away: ")
    assert record["model"] == "assistant"
    assert record["route"]["model"] == "small"
    assert [each["reason"] for each in record["route"]["skipped"]] == ["away"]


async def test_a_load_of_a_variant_that_is_not_good_enough_is_not_waited_for() -> None:
    rough = an_engine("big:Q2_K", id="rough", state="absent")
    rough = structs.replace(rough, load_seconds=1.0)
    async with two() as (balancer, gpu, _):
        failed = structs.replace(gpu.engine, state="failed", variant="big:Q8_0")
        gpu.say(structs.replace(gpu.report, engines=(failed, rough)))
        await balancer.until(lambda fleet: len(fleet.nodes[0].report.engines) == 2)
        headers = {"x-edgeserve-min-quality": "Q4_0"}
        answer = await balancer.post(CHAT, chat(model="assistant"), headers)

    assert told(answer)[1] == SMALL
    assert told(answer)[2].startswith("big is away: ")


async def test_a_model_that_no_node_knows_is_passed_over() -> None:
    route = ModelRoute(name="assistant", models=("huge", "small"))
    async with two(route) as (balancer, *_):
        answer = await balancer.post(CHAT, chat(model="assistant"))

    assert told(answer)[1:] == (SMALL, "huge is served by no node")


async def test_a_model_that_will_have_loaded_soon_is_waited_for() -> None:
    async with two() as (balancer, gpu, _):
        gpu.say(state="loading", load_seconds=4.0)
        await balancer.until(
            lambda fleet: fleet.nodes[0].report.engines[0].state == "loading"
        )
        state = balancer.balancer.state
        state.queue.grows.subscribe(lambda: gpu.say(state="ready"))
        answer = await balancer.post(CHAT, chat(model="assistant"))

    assert told(answer)[1] == BIG


@pytest.mark.parametrize("policy", ["predict", "least-busy"])
async def test_a_model_that_is_full_is_passed_over(policy: str) -> None:
    route = ModelRoute(name="assistant", models=("big", "small"), full_seconds=0.001)
    patient = ModelRoute(name="patient", models=("big", "small"), when=("away",))
    async with (
        two(route, patient, policy=policy) as (balancer, gpu, _),
        busy_at(balancer, gpu),
    ):
        answer = await balancer.post(CHAT, chat(model="assistant"))
        waits = await balancer.post(
            CHAT, chat(model="patient"), {"x-edgeserve-deadline-ms": "50"}
        )

    assert told(answer)[1] == SMALL
    assert told(answer)[2].startswith("big is full: ")
    assert waits.status in {429, 504}


@asynccontextmanager
async def busy_at(balancer: Endpoint, node: FakeNode) -> AsyncGenerator[None]:
    """Have the one slot of a node at work until the block ends."""
    node.llama.freeze()
    asked = asyncio.ensure_future(balancer.post(CHAT, chat(model="big")))
    await eventually(lambda: any(each.path == CHAT for each in node.told))
    try:
        yield
    finally:
        node.llama.thaw()
        await asked


async def test_the_wait_of_those_that_are_ahead_counts() -> None:
    async with two() as (balancer, gpu, _), busy_at(balancer, gpu):
        state = balancer.balancer.state
        body = json.dumps(chat(model="big")).encode()
        routing = read_request(ROUTES[CHAT], body).routing
        alone = state.prospects.of(routing, 1e-6).full
        four = replace(state.prospects, ahead=lambda _: 4)
        behind_four = four.of(routing, 1e-6).full

    seconds = [float(each.split()[-2]) for each in (alone, behind_four)]
    assert seconds[1] > seconds[0] > 0


async def test_embeddings_spill_over_when_every_slot_is_busy() -> None:
    def embedder(variant: str) -> Any:
        return an_engine(variant, slots=1, abilities=("embeddings",))

    route = ModelRoute(name="embed", models=("big", "bge"))
    full = embedder(BIG)
    async with (
        fake_node("gpu", engine=full) as first,
        fake_node("pi", engine=embedder("bge:F16")) as second,
        endpoint(first, second, routes=(route,)) as balancer,
    ):
        free = await balancer.post("/v1/embeddings", {"model": "embed", "input": "a"})
        first.say(busy=1, state="busy")
        await balancer.until(lambda fleet: fleet.nodes[0].report.engines[0].busy == 1)
        spilt = await balancer.post("/v1/embeddings", {"model": "embed", "input": "a"})

    assert (told(free)[1], told(spilt)[1]) == (BIG, "bge:F16")
    assert told(spilt)[2] == "big is full: every slot is busy"


async def test_a_prompt_that_is_too_long_goes_to_the_model_that_has_room() -> None:
    short = an_engine(BIG, slots=1, context=256)
    async with two(big=short) as (balancer, *_):
        fits = await balancer.post(CHAT, chat(model="assistant"))
        answer = await balancer.post(CHAT, chat("word " * 2000, model="assistant"))

    assert told(fits)[1] == BIG
    assert told(answer)[1] == SMALL
    assert told(answer)[2].startswith("big has a context of 256 tokens, and the prompt")


async def test_an_engine_that_refuses_a_prompt_as_too_long_passes_it_to_the_next() -> (
    None
):
    async with two(big=an_engine(BIG, context=256)) as (balancer, gpu, _):
        gpu.llama.behaviour.context = 4
        answer = await balancer.post(CHAT, chat("a b c d e f", model="assistant"))

    assert (answer.status, told(answer)[1]) == (200, SMALL)
    assert "and the prompt has more" in told(answer)[2]


@pytest.mark.parametrize(
    ("path", "asked"), [(CHAT, chat()), ("/v1/completions", {"prompt": "hi"})]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_before_the_first_token_a_failure_takes_the_next_model(
    path: str, asked: dict[str, Any], stream: bool
) -> None:
    body = {**asked, "model": "assistant", "max_tokens": 40}
    async with two() as (balancer, gpu, _):
        gpu.refuse = NodeLost("the engine ended")
        answer = await balancer.post(path, {**body, "stream": stream})
        record = await record_of(balancer, answer)

    assert answer.status == 200
    assert told(answer)[1] == SMALL
    assert answer.headers["x-edgeserve-attempts"] == "2"
    assert [each["variant"] for each in record["attempts"]] == [BIG, SMALL]


async def test_a_node_that_has_no_slot_after_all_takes_the_next_model() -> None:
    async with two() as (balancer, gpu, _):
        gpu.refuse = FleetBusy(1)
        answer = await balancer.post(CHAT, chat(model="assistant"))

    assert (answer.status, told(answer)[1]) == (200, SMALL)
    assert "no slot left a moment ago" in told(answer)[2]


async def test_a_request_that_a_node_sends_back_finds_its_place_in_a_full_queue() -> (
    None
):
    async with two(queue=1) as (balancer, gpu, _):
        gpu.refuse = FleetBusy(1)
        asked = [
            asyncio.ensure_future(balancer.post(CHAT, chat(model="big")))
            for _ in range(2)
        ]
        await eventually(lambda: len(gpu.told) > 1)
        gpu.refuse = None
        answers = [await each for each in asked]

    assert [each.status for each in answers] == [200, 200]


async def test_where_the_queue_takes_no_more_the_next_model_is_taken() -> None:
    route = ModelRoute(name="assistant", models=("big", "small"), full_seconds=1000)
    async with two(route, queue=0) as (balancer, gpu, _), busy_at(balancer, gpu):
        answer = await balancer.post(CHAT, chat(model="assistant"))

    assert (answer.status, told(answer)[1]) == (200, SMALL)
    assert "the queue is full" in told(answer)[2]


@pytest.mark.parametrize("stream", [False, True])
async def test_messages_take_the_next_model_too(stream: bool) -> None:
    async with two() as (balancer, gpu, pi):
        gpu.refuse = NodeLost("the engine ended")
        pi.script = [(Engine().messages(["well"]), "whole")]
        body = chat(model="assistant", max_tokens=40, stream=stream)
        answer = await balancer.post("/v1/messages", body)

    assert (answer.status, told(answer)[1]) == (200, SMALL)
    assert b"well" in answer.body


async def test_a_model_whose_engines_use_up_the_attempts_is_passed_over() -> None:
    async with two(attempts=1) as (balancer, gpu, _):
        gpu.refuse = NodeLost("the engine ended")
        answer = await balancer.post(CHAT, chat(model="assistant"))

    assert (answer.status, told(answer)[1]) == (200, SMALL)


async def test_a_route_without_away_stays_with_a_model_that_fails() -> None:
    route = ModelRoute(name="assistant", models=("big", "small"), when=("full",))
    async with two(route) as (balancer, gpu, pi):
        gpu.refuse = NodeLost("the engine ended")
        answer = await balancer.post(CHAT, chat(model="assistant"))

    assert (answer.status, told(answer)[1]) == (502, BIG)
    assert pi.told == []


async def test_an_answer_that_has_begun_never_goes_on_with_another_model() -> None:
    async with two() as (balancer, gpu, pi):
        gpu.llama.behaviour.fault, gpu.llama.behaviour.fault_tokens = "break", 3
        answer = await balancer.post(CHAT, chat(model="assistant", stream=True))

    assert told(answer)[1] == BIG
    assert b'"error"' in answer.body
    assert b"w0" in answer.body
    assert pi.told == []


async def test_where_no_model_can_serve_the_error_is_that_of_the_first() -> None:
    route = ModelRoute(name="assistant", models=("huge", "vast"))
    async with two(route) as (balancer, *_):
        answer = await balancer.post(CHAT, chat(model="assistant"))

    assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")
    assert "'huge'" in answer.error
    assert answer.headers["x-edgeserve-route"] == "assistant"


async def test_a_key_for_a_route_reaches_its_models_only_through_it(
    tmp_path: Any,
) -> None:
    secret = "guest-secret-of-many-letters"
    key = ClientKey(id=key_id(secret), name="guest", models=("assistant",))
    add_key(store_in(tmp_path), key)
    headers = {"authorization": f"Bearer {secret}"}
    async with two(state_dir=tmp_path) as (balancer, *_):
        through = await balancer.post(CHAT, chat(model="assistant"), headers)
        straight = await balancer.post(CHAT, chat(model="big"), headers)
        listed = (await balancer.get("/v1/models", headers)).json["data"]

    assert (through.status, straight.status) == (200, 403)
    assert [each["id"] for each in listed] == ["assistant"]
    assert listed[0]["route"] == ["big", "small"]


async def test_a_route_is_among_the_models() -> None:
    async with two() as (balancer, *_):
        listed = (await balancer.get("/v1/models")).json["data"]
        one = await balancer.get("/v1/models/assistant")

    assert [each["id"] for each in listed if "route" in each] == ["assistant"]
    assert one.json["owned_by"] == "edgeserve"


async def test_a_route_with_the_name_of_its_first_model_stands_for_both() -> None:
    route = ModelRoute(name="big", models=("big", "small"))
    async with two(route) as (balancer, gpu, _):
        first = await balancer.post(CHAT, chat(model="big"))
        gpu.refuse = NodeLost("the engine ended")
        second = await balancer.post(CHAT, chat(model="big"))
        listed = (await balancer.get("/v1/models")).json["data"]

    assert (told(first)[1], told(second)[1]) == (BIG, SMALL)
    assert [each["id"] for each in listed].count("big") == 1
