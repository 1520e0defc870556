"""llama.cpp's other routes, wrong paths, and odd fields that other servers take."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgeserve.errors import BadRequest
from edgeserve.openai import ROUTES, read
from tests.balancer.api.test_inference import said
from tests.balancer.endpoint import CHAT, chat, endpoint
from tests.fakes.llama import Behaviour
from tests.fakes.node import fake_node
from tests.fakes.reports import an_engine


@pytest.mark.parametrize("stream", [True, False])
async def test_a_chat_without_v1_is_the_same_chat(stream: bool) -> None:
    async with fake_node() as node, endpoint(node) as balancer:
        answer = await balancer.post("/chat/completions", chat(stream=stream))

    assert answer.status == 200
    text = said(answer.body) if stream else answer.text
    assert text == " ".join(f"w{n}" for n in range(16))


async def test_completions_without_v1_is_llama_cpps_own_format() -> None:
    async with fake_node() as node, endpoint(node) as balancer:
        answer = await balancer.post("/completions", {"prompt": "a b", "n_predict": 40})

    assert answer.status == 200
    assert answer.json["content"].startswith("w0 w1")
    assert "choices" not in answer.json


@pytest.mark.parametrize("path", ["/models", "/v1/health"])
async def test_what_others_ask_first_is_answered(path: str) -> None:
    async with fake_node() as node, endpoint(node) as balancer:
        answer = await balancer.get(path)
        usual = await balancer.get(path.removeprefix("/v1").replace("/mo", "/v1/mo"))

    assert (answer.status, answer.json) == (200, usual.json)


async def test_props_and_slots_are_those_of_the_engine_that_is_named() -> None:
    async with (
        fake_node("pi", Behaviour(slots=2)) as node,
        endpoint(node) as balancer,
    ):
        props = await balancer.get("/props?model=small")
        slots = await balancer.get("/slots")
        unknown = await balancer.get("/props?model=huge")

    assert props.json["total_slots"] == 2
    assert props.headers["x-edgeserve-node"] == "pi"
    assert len(slots.json) == 2
    assert (unknown.status, unknown.json["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/slots"), ("GET", "/props"), ("POST", "/tokenize")]
)
async def test_what_takes_no_slot_does_not_wait_for_one(method: str, path: str) -> None:
    full = an_engine("small:Q4_1", slots=2, busy=2, state="busy")
    async with (
        fake_node("pi", engine=full) as node,
        endpoint(node, queue_seconds=0.05) as balancer,
        balancer.session.request(method, path, json={"content": "a b"}) as answer,
    ):
        waits = await balancer.post(CHAT, chat())

    assert (answer.status, waits.status) == (200, 504)


@pytest.mark.parametrize("body", [{}, {"model": None}, {"model": ""}])
async def test_any_model_tokenizes_and_none_need_be_named(body: dict[str, Any]) -> None:
    embedder = an_engine("bge:F16", abilities=("embeddings",))
    async with fake_node("pi", engine=embedder) as node, endpoint(node) as balancer:
        tokens = await balancer.post("/tokenize", {"content": "a b c", **body})
        text = await balancer.post("/detokenize", {"tokens": [0, 1], **body})

    assert tokens.json["tokens"] == [0, 1, 2]
    assert text.json["content"] == "w0 w1"


@pytest.mark.parametrize(
    ("field", "value", "sent"),
    [
        ("max_tokens", 40.0, 40),
        ("max_tokens", "40", 40),
        ("n_predict", 4e1, 40),
        ("n", 1.0, 1),
        ("n", None, None),
        ("stop", None, None),
        ("stream", None, True),
        ("stream", 0, True),
        ("stream", "false", True),
        ("model", None, "small:Q4_1"),
        ("model", "", "small:Q4_1"),
    ],
)
async def test_what_other_servers_take_passes(
    field: str, value: Any, sent: Any
) -> None:
    async with fake_node() as node, endpoint(node) as balancer:
        answer = await balancer.post(CHAT, {**chat(), field: value})

    assert answer.status == 200
    assert answer.json["object"] == "chat.completion"
    assert node.llama.requests[0].body[field] == sent


@pytest.mark.parametrize("true", [1, "true", "1"])
async def test_a_stream_that_is_asked_for_oddly_streams(true: Any) -> None:
    async with fake_node() as node, endpoint(node) as balancer:
        answer = await balancer.post(CHAT, chat(stream=true, max_tokens=2))

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert said(answer.body) == "w0 w1"


@pytest.mark.parametrize(
    ("method", "path", "hint"),
    [
        ("POST", "/v1/chat/completion", "did you mean /v1/chat/completions?"),
        ("POST", "/v1/v1/chat/completions", "did you mean /v1/chat/completions?"),
        ("POST", "/v1/chat/completions/", "did you mean /v1/chat/completions?"),
        ("GET", "/v1/models/", "did you mean /v1/models?"),
        ("GET", "/edgeserve/v1/node", "did you mean /edgeserve/v1/nodes?"),
        ("POST", "/nothing/at/all", "docs/api.md lists the routes"),
    ],
)
async def test_a_wrong_path_says_what_may_be_meant(
    method: str, path: str, hint: str
) -> None:
    async with (
        endpoint() as balancer,
        balancer.session.request(method, path, data=b"{}") as answer,
    ):
        error = (await answer.json())["error"]

    assert (answer.status, error["code"]) == (404, "not_found")
    assert hint in error["message"]


async def test_a_wrong_method_on_an_own_route_says_which_is_right() -> None:
    async with endpoint() as balancer:
        answer = await balancer.post("/v1/models", b"{}")

    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    assert answer.json["error"]["code"] == "method_not_allowed"


def test_a_body_is_sent_as_it_was_understood() -> None:
    odd = b'{"max_tokens": 16.0, "stream": 1, "temperature": 0.10, "n": null}'

    asked, body = read(odd)

    assert (asked.budget, asked.stream) == (16, True)
    assert body == b'{"max_tokens":16,"stream":true,"temperature":0.10,"n":null}'
    assert read(b'{"max_tokens": 16}')[1] == b'{"max_tokens": 16}'


@pytest.mark.parametrize("value", [16.5, "x", True, [], {}, 1e400])
def test_a_length_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(BadRequest):
        read(json.dumps({"max_tokens": value}).encode())


def test_every_name_of_a_route_leads_to_it() -> None:
    assert ROUTES["/reranking"] is ROUTES["/v1/rerank"]
    assert ROUTES["/embedding"] is ROUTES["/embeddings"]
    assert ROUTES["/embeddings"] is not ROUTES["/v1/embeddings"]
