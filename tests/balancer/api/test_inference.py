"""Inference through a whole balancer, in front of fake nodes that are well."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from edgeserve.openai import ROUTES
from edgeserve.wire import REQUEST_HEADER, VARIANT_HEADER
from tests.balancer.endpoint import CHAT, busy, chat, endpoint, eventually
from tests.fakes.llama import Behaviour
from tests.fakes.node import fake_node
from tests.fakes.reports import an_engine


def events(body: bytes) -> list[Any]:
    lines = [line[6:] for line in body.splitlines() if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


def said(body: bytes) -> str:
    deltas = [choice["delta"] for each in events(body) for choice in each["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


async def test_a_stream_reaches_the_client_whole() -> None:
    async with fake_node() as node, endpoint(node) as balancer:
        answer = await balancer.post(CHAT, chat(stream=True, max_tokens=4))

    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert said(answer.body) == "w0 w1 w2 w3"
    assert answer.body.endswith(b"data: [DONE]\n\n")


async def test_a_client_that_does_not_stream_gets_one_body() -> None:
    async with fake_node() as node, endpoint(node) as balancer:
        answer = await balancer.post(CHAT, chat())

    assert (answer.status, answer.text) == (200, " ".join(f"w{n}" for n in range(16)))
    assert answer.json["usage"]["completion_tokens"] == 16
    assert node.llama.requests[0].body["stream"] is True


async def test_a_short_answer_is_not_worth_streaming_to_ourselves() -> None:
    async with fake_node() as node, endpoint(node) as balancer:
        answer = await balancer.post(CHAT, chat(max_tokens=4))

    assert (answer.status, answer.text) == (200, "w0 w1 w2 w3")
    assert "stream" not in node.llama.requests[0].body


async def test_every_answer_says_how_it_came_about() -> None:
    async with fake_node("pi") as node, endpoint(node) as balancer:
        well = await balancer.post(CHAT, chat(max_tokens=1))
        wrong = await balancer.post(CHAT, chat(model="huge"))

    assert well.headers["x-edgeserve-node"] == "pi"
    assert well.headers["x-edgeserve-model"] == "small:Q4_1"
    assert well.headers["x-edgeserve-attempts"] == "1"
    assert well.headers[REQUEST_HEADER].startswith("req-")
    assert wrong.headers["x-edgeserve-attempts"] == "0"
    assert wrong.headers[REQUEST_HEADER].startswith("req-")


async def test_a_sane_request_id_travels_all_the_way() -> None:
    async with fake_node() as node, endpoint(node) as balancer:
        answer = await balancer.post(CHAT, chat(), {REQUEST_HEADER: "mine-1"})

        assert answer.headers[REQUEST_HEADER] == "mine-1"
        assert node.told[0].headers[REQUEST_HEADER] == "mine-1"
        assert node.told[0].headers[VARIANT_HEADER] == "small:Q4_1"


async def test_a_name_that_is_not_ascii_still_makes_a_header() -> None:
    async with fake_node("Küche\n") as node, endpoint(node) as balancer:
        answer = await balancer.post(CHAT, chat())

    assert answer.headers["x-edgeserve-node"] == "K%C3%BCche%0A"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "x", "max_tokens": 2}),
        ("/completion", {"prompt": "x", "n_predict": 2}),
        ("/infill", {"input_prefix": "x", "n_predict": 2}),
        ("/tokenize", {"content": "a b"}),
        ("/detokenize", {"tokens": [1, 2]}),
        ("/apply-template", {"messages": []}),
    ],
)
async def test_other_routes_answer_as_the_engine_does(
    path: str, body: dict[str, Any]
) -> None:
    async with fake_node() as node, endpoint(node) as balancer:
        answer = await balancer.post(path, body | {"model": "small"})

    assert answer.status == 200
    assert isinstance(answer.json, dict)


async def test_embeddings_go_to_an_engine_that_makes_them() -> None:
    embedder = an_engine("bge:F16", abilities=("embeddings",))
    async with (
        fake_node("pi") as pi,
        fake_node("nuc", Behaviour(embeddings=True), engine=embedder) as nuc,
        endpoint(pi, nuc) as balancer,
    ):
        answer = await balancer.post("/v1/embeddings", {"model": "bge", "input": "x"})
        asked_of_chat = await balancer.post(
            "/v1/embeddings", {"model": "small", "input": "x"}
        )

    assert answer.headers["x-edgeserve-node"] == "nuc"
    assert asked_of_chat.status == 400
    assert "ask bge" in asked_of_chat.error


async def test_work_is_spread_over_idle_slots() -> None:
    async with (
        fake_node("pi") as pi,
        fake_node("nuc") as nuc,
        endpoint(pi, nuc) as balancer,
        busy(balancer, 4, pi, nuc),
    ):
        assert len(pi.told) == len(nuc.told) == 2


async def test_requests_wait_while_every_slot_is_busy_and_none_fails() -> None:
    behaviour = Behaviour(slots=1, decode=200)
    async with fake_node("pi", behaviour) as node, endpoint(node) as balancer:
        answers = await asyncio.gather(
            *(balancer.post(CHAT, chat(max_tokens=2)) for _ in range(12))
        )

        assert {answer.status for answer in answers} == {200}
        assert {answer.headers["x-edgeserve-attempts"] for answer in answers} == {"1"}
        assert balancer.balancer.state.queue.waiting == 0


async def test_a_full_queue_says_when_to_come_back() -> None:
    one = Behaviour(slots=1)
    async with fake_node("pi", one) as node, endpoint(node, queue=0) as balancer:
        async with busy(balancer, 1, node):
            refused = await balancer.post(CHAT, chat())

        assert refused.status == 429
        assert int(refused.headers["retry-after"]) >= 1


async def test_a_deadline_that_passes_while_waiting_is_an_error() -> None:
    one = Behaviour(slots=1)
    async with fake_node("pi", one) as node, endpoint(node) as balancer:
        async with busy(balancer, 1, node):
            late = await balancer.post(CHAT, chat(), {"x-edgeserve-deadline-ms": "50"})

        assert late.status == 504


async def test_a_deadline_is_met_once_the_answer_has_begun() -> None:
    async with (
        fake_node("pi", Behaviour(decode=8)) as node,
        endpoint(node) as balancer,
        balancer.session.post(
            CHAT,
            json=chat(stream=True, max_tokens=8),
            headers={"x-edgeserve-deadline-ms": "1500"},
        ) as answer,
    ):
        begun = await answer.content.readany()
        node.llama.freeze()
        await asyncio.sleep(1.5)
        node.llama.thaw()
        rest = await answer.read()

    assert said(begun + rest) == "w0 w1 w2 w3 w4 w5 w6 w7"


async def test_others_work_counts_as_busy() -> None:
    async with (
        fake_node("pi", engine=an_engine(busy=1)) as pi,
        fake_node("nuc") as nuc,
        endpoint(pi, nuc) as balancer,
    ):
        answer = await balancer.post(CHAT, chat())

    assert answer.headers["x-edgeserve-node"] == "nuc"


async def test_an_engine_that_becomes_ready_serves_waiting_requests() -> None:
    loading = an_engine(state="loading")
    async with fake_node("pi", engine=loading) as node, endpoint(node) as balancer:
        waiting = asyncio.ensure_future(balancer.post(CHAT, chat()))
        await eventually(lambda: balancer.balancer.state.queue.waiting == 1)

        node.say(state="ready")

        assert (await waiting).status == 200


async def test_a_client_that_leaves_mid_stream_frees_the_engines_slot() -> None:
    async with (
        fake_node("pi", Behaviour(decode=4)) as node,
        endpoint(node) as balancer,
    ):
        response = await balancer.session.post(CHAT, json=chat(stream=True))
        await response.content.readany()
        assert node.engine.busy == 1

        response.close()

        await eventually(lambda: node.engine.busy == 0)
        await eventually(lambda: node.llama.counters.cancelled == 1)
        assert balancer.balancer.state.in_flight.inside == 0


async def test_a_client_that_leaves_before_its_answer_frees_the_slot_too() -> None:
    async with (
        fake_node("pi", Behaviour(decode=1)) as node,
        endpoint(node) as balancer,
    ):
        leaving = asyncio.ensure_future(balancer.post(CHAT, chat()))
        await eventually(lambda: node.engine.busy == 1)

        leaving.cancel()

        await eventually(lambda: node.llama.counters.cancelled == 1)
        await eventually(lambda: node.engine.busy == 0)


async def test_a_client_that_leaves_the_queue_reaches_no_node() -> None:
    one = Behaviour(slots=1)
    async with fake_node("pi", one) as node, endpoint(node) as balancer:
        async with busy(balancer, 1, node):
            leaving = asyncio.ensure_future(balancer.post(CHAT, chat()))
            await eventually(lambda: balancer.balancer.state.queue.waiting == 1)

            leaving.cancel()
            await eventually(lambda: balancer.balancer.state.queue.waiting == 0)

        assert len(node.told) == 1


@pytest.mark.parametrize("path", sorted(ROUTES))
async def test_a_wrong_method_is_refused(path: str) -> None:
    async with endpoint() as balancer:
        if ROUTES[path].method == "POST":
            answer = await balancer.get(path)
        else:
            answer = await balancer.post(path, b"{}")

    assert answer.status == 405
    assert answer.headers["allow"] == ROUTES[path].method
    assert answer.json["error"]["code"] == "method_not_allowed"
