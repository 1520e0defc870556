"""Errors for requests that ask for more than a fleet can do."""

from __future__ import annotations

from typing import Any

import pytest

from tests.balancer.endpoint import CHAT, chat, endpoint
from tests.fakes.llama import Behaviour
from tests.fakes.node import fake_node
from tests.fakes.reports import an_engine

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aaaa"}}
SHOWN = {"type": "image", "source": {"type": "base64", "data": "aaaa"}}
TOOLS: dict[str, Any] = {"tools": [{"type": "function", "function": {"name": "f"}}]}


def asked(path: str) -> dict[str, Any]:
    part = SHOWN if path.startswith("/v1/messages") else IMAGE
    if path == "/v1/responses":
        part = {"type": "input_image", "image_url": "data:image/png;base64,aaaa"}
    turns = [{"role": "user", "content": [part]}]
    return {"model": "small", "messages": turns, "input": turns, "max_tokens": 40}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "path",
    [CHAT, "/v1/responses", "/v1/messages", "/v1/messages/count_tokens"],
)
async def test_an_image_for_a_model_without_vision_is_refused_and_names_one_with_it(
    path: str, stream: bool
) -> None:
    sees = an_engine("eye:Q4_1", abilities=("chat", "completion", "vision"))
    async with (
        fake_node("a") as blind,
        fake_node("b", engine=sees) as other,
        endpoint(blind, other) as balancer,
    ):
        answer = await balancer.post(path, {**asked(path), "stream": stream})

    assert answer.status == 400
    assert "small cannot look at images; ask eye" in answer.error
    assert blind.told == other.told == []


async def test_an_image_goes_to_the_variant_with_vision() -> None:
    sees = an_engine("small:Q8_0", abilities=("chat", "completion", "vision"))
    async with (
        fake_node("a") as blind,
        fake_node("b", engine=sees) as other,
        endpoint(blind, other) as balancer,
    ):
        answer = await balancer.post(CHAT, asked(CHAT))
        named = await balancer.post(CHAT, {**asked(CHAT), "model": "small:Q4_1"})

    assert answer.status == 200
    assert answer.headers["x-edgeserve-node"] == "b"
    assert named.status == 400


async def test_a_forced_tool_call_needs_a_template_with_tools() -> None:
    knows = an_engine("able:Q4_1", abilities=("chat", "completion", "tools"))
    async with (
        fake_node("a") as first,
        fake_node("b", engine=knows) as second,
        endpoint(first, second) as balancer,
    ):
        must = await balancer.post(CHAT, chat(**TOOLS, tool_choice="required"))
        may = await balancer.post(CHAT, chat(**TOOLS))
        able = await balancer.post(
            CHAT, chat(model="able", **TOOLS, tool_choice="required")
        )
        models = (await balancer.get("/v1/models")).json["data"]

    assert must.status == 400
    assert "template" in must.error
    assert "ask able" in must.error
    assert (may.status, able.status) == (200, 200)
    assert [e["id"] for e in models if "tools" in e["abilities"]] == ["able"]


async def test_too_many_answers_at_once_are_refused_with_their_number() -> None:
    async with (
        fake_node("a", Behaviour(slots=2)) as node,
        endpoint(node) as balancer,
    ):
        answer = await balancer.post(CHAT, chat(n=5))

    assert answer.status == 400
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert "ask for 2 at most" in answer.error
    assert node.told == []


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/completion"])
async def test_a_prompt_that_is_too_long_is_an_error_as_openai_writes_it(
    path: str, stream: bool
) -> None:
    short = Behaviour(context=8)
    long = {**chat("word " * 40), "prompt": "word " * 40, "stream": stream}
    async with fake_node("a", short) as node, endpoint(node) as balancer:
        answer = await balancer.post(path, long)

    error = answer.json["error"]
    assert answer.status == 400
    assert error["code"] == "context_length_exceeded"
    assert error["n_ctx"] == 8
    assert str(error["n_prompt_tokens"]) in error["message"]
