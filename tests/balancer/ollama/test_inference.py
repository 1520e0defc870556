"""Ollama's routes through a whole balancer: failures, keys, and models that leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.balancer.api.models.ruled import engine, ruled
from tests.balancer.endpoint import a_secret, chat, endpoint, eventually
from tests.fakes.llama import Behaviour
from tests.fakes.node import fake_node

CHAT = "/api/chat"


def lines(body: bytes) -> list[Any]:
    return [json.loads(line) for line in body.splitlines()]


def said(body: bytes) -> str:
    return "".join(each["message"]["content"] for each in lines(body))


def breaks() -> Behaviour:
    return Behaviour(fault="break", fault_tokens=3)


async def test_an_answer_that_breaks_off_goes_on_elsewhere_without_a_seam() -> None:
    async with (
        fake_node("a-breaks", breaks()) as first,
        fake_node("b-well") as second,
        endpoint(first, second) as balancer,
    ):
        options = {"num_predict": 8}
        answer = await balancer.post(CHAT, chat(options=options))
        whole = await balancer.post(CHAT, chat(options=options, stream=False))

    assert said(answer.body) == " ".join(f"w{n}" for n in range(8))
    assert said(whole.body) == said(answer.body)
    assert first.llama.requests
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [each["done"] for each in lines(answer.body)].count(True) == 1
    assert lines(answer.body)[-1]["eval_count"] == 8


async def test_an_answer_that_cannot_go_on_ends_in_a_line_with_the_error() -> None:
    async with fake_node("a", breaks()) as node, endpoint(node) as balancer:
        answer = await balancer.post(CHAT, chat())

    *texts, last = lines(answer.body)
    assert [each["done"] for each in texts] == [False] * len(texts)
    assert list(last) == ["error"]
    assert isinstance(last["error"], str)


async def test_a_client_that_leaves_frees_its_slot() -> None:
    slow = Behaviour(decode=5.0, length=1000)
    async with fake_node("a", slow) as node, endpoint(node) as balancer:
        async with balancer.session.post(CHAT, json=chat()) as answer:
            await answer.content.readline()
        await eventually(lambda: node.llama.counters.cancelled == 1)
        await eventually(lambda: node.llama.busy == 0)


async def test_an_odd_answer_of_an_engine_is_an_error_not_a_fault() -> None:
    async with fake_node("a") as node, endpoint(node) as balancer:
        node.script = [(b"data: {oops}\n\ndata: [DONE]\n\n", "whole")]
        answer = await balancer.post(CHAT, chat())

    assert list(lines(answer.body)[-1]) == ["error"]


async def test_errors_have_ollamas_shape_and_our_status(tmp_path: Path) -> None:
    keys = a_secret(tmp_path, "keys", "a-key-of-some-length-1")
    key = {"authorization": "Bearer a-key-of-some-length-1"}
    async with fake_node() as node, endpoint(node, api_key_file=keys) as balancer:
        closed = await balancer.post(CHAT, chat())
        hidden = await balancer.get("/api/tags")
        listed = await balancer.get("/api/tags", key)
        wrong = await balancer.post(CHAT, b"{", key)
        unknown = await balancer.post(CHAT, chat(model="huge"), key)
        method = await balancer.get(CHAT, key)
        missing = await balancer.post("/api/push", {}, key)

    failed = (closed, hidden, wrong, unknown, method, missing)
    assert [each.status for each in failed] == [401, 401, 400, 404, 405, 404]
    assert all(isinstance(each.json["error"], str) for each in failed)
    assert "docs/api.md says which" in missing.json["error"]
    assert [each["name"] for each in listed.json["models"]] == ["small:latest"]


async def test_only_an_admin_can_have_a_model_leave(tmp_path: Path) -> None:
    idle = {"model": "small", "keep_alive": 0}
    async with ruled(tmp_path, pi=engine("ready")) as fleet:
        post, key = fleet.endpoint.post, {"authorization": f"Bearer {fleet.key}"}
        answered = await post(CHAT, chat(keep_alive=0))
        refused = await post(CHAT, idle)
        before = fleet.got("pi")
        streamed = await post(CHAT, chat(keep_alive="0s"), key)
        after = fleet.got("pi")
        await fleet.known("pi")
        unloaded = await post("/api/generate", idle, key)

    assert (answered.status, refused.status, before) == (200, 403, [])
    assert answered.headers["x-edgeserve-ignored"] == "keep_alive"
    assert lines(streamed.body)[-1]["done"] is True
    assert [order for order, _ in after] == ["unload"]
    assert unloaded.json["done_reason"] == "unload"


async def test_a_keep_alive_of_an_admin_is_told_to_nodes_that_were_told_otherwise(
    tmp_path: Path,
) -> None:
    async with ruled(tmp_path, pi=engine("ready")) as fleet:
        post, key = fleet.endpoint.post, {"authorization": f"Bearer {fleet.key}"}
        answered = await post(CHAT, chat(keep_alive="5m"))
        told = fleet.got("pi")
        for forever in (-1, "-1s"):
            await post(CHAT, chat(keep_alive=forever), key)
            await fleet.known("pi")
        kept = await post(CHAT, chat(keep_alive="5m"), key)

    assert answered.headers["x-edgeserve-ignored"] == "keep_alive"
    assert told == []
    assert "x-edgeserve-ignored" not in kept.headers
    orders = [(order, said["keep_alive"]) for order, said in fleet.got("pi")]
    assert orders == [("desired", 0), ("desired", 300)]


async def test_the_log_of_requests_has_the_path_that_the_client_asked() -> None:
    async with fake_node() as node, endpoint(node) as balancer:
        await balancer.post(CHAT, chat())
        shown = await balancer.get("/edgeserve/v1/requests")

    assert [each["path"] for each in shown.json] == [CHAT]


async def test_a_request_without_a_prompt_loads_what_is_not_loaded() -> None:
    async with (
        fake_node(engine=engine("absent")) as node,
        endpoint(node) as balancer,
    ):
        answer = await balancer.post("/api/generate", {"model": "small:latest"})

    assert (answer.status, answer.json["done_reason"]) == (200, "load")
    assert node.loads.loads == ["small:Q4_1"]


@pytest.mark.parametrize("path", ["/api/chat", "/api/tags", "/api/pull"])
async def test_pages_of_this_machine_may_chat_and_look_but_change_nothing(
    path: str,
) -> None:
    asked = {"origin": "http://localhost:3000", "access-control-request-method": "POST"}
    async with (
        fake_node() as node,
        endpoint(node) as balancer,
        balancer.session.options(path, headers=asked) as answer,
    ):
        allowed = answer.headers.get("access-control-allow-origin")

    assert allowed == (None if path == "/api/pull" else asked["origin"])


async def test_the_root_says_what_ollama_says() -> None:
    async with fake_node() as node, endpoint(node) as balancer:
        root = await balancer.get("/")
        version = await balancer.get("/api/version")

    assert root.body == b"Ollama is running"
    assert version.json["version"].count(".") == 2


@pytest.mark.parametrize("name", ["small", "SMALL:latest", "small:q4_1", "small.gguf"])
async def test_a_model_is_found_by_its_name_with_any_tag_of_its_own(name: str) -> None:
    async with fake_node() as node, endpoint(node) as balancer:
        answer = await balancer.post(CHAT, chat(model=name, stream=False))

    assert (answer.status, answer.json["model"]) == (200, name)


async def test_another_tag_than_the_models_own_is_not_found() -> None:
    async with fake_node() as node, endpoint(node) as balancer:
        answer = await balancer.post(CHAT, chat(model="small:1b"))

    assert answer.status == 404
