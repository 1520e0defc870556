"""Errors on /v1/messages, in the shape that Anthropic's clients know."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from balancer.failover.refusal import EngineRefusal
from edgeserve.errors import EdgeserveError, FleetBusy, NodeLost
from tests.balancer.endpoint import Answered, a_secret, chat, endpoint
from tests.fakes.llama import Behaviour
from tests.fakes.node import fake_node
from tests.patience import PATIENCE

MESSAGES = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
LONG = json.dumps(
    {"error": {"type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 4}}
).encode()
OPENING = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m",'
    b'"type":"message","role":"assistant","content":[],"model":"small",'
    b'"usage":{"input_tokens":1,"output_tokens":0}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
    b'"content_block":{"type":"text","text":""}}\n\n'
)


def ask(**fields: Any) -> dict[str, Any]:
    return chat(max_tokens=40, **fields)


def checked(answer: Answered, status: int, kind: str) -> str:
    """Check the shape; return the sentence."""
    body = answer.json
    assert answer.status == status
    assert set(body) == {"type", "error", "request_id"}
    assert (body["type"], body["error"]["type"]) == ("error", kind)
    assert answer.headers["content-type"].startswith("application/json")
    message: str = body["error"]["message"]
    return message


@pytest.mark.parametrize("path", [MESSAGES, COUNT])
async def test_a_wrong_request_and_an_unknown_model_are_errors(path: str) -> None:
    async with fake_node() as node, endpoint(node) as balancer:
        wrong = await balancer.post(path, b"{")
        unknown = await balancer.post(path, ask(model="huge"))

    assert "not valid" in checked(wrong, 400, "invalid_request_error")
    assert "huge" in checked(unknown, 404, "not_found_error")
    assert unknown.json["request_id"] == unknown.headers["x-edgeserve-request-id"]


async def test_a_wrong_route_is_an_error() -> None:
    async with fake_node() as node, endpoint(node) as balancer:
        got = await balancer.get(MESSAGES)
        batches = await balancer.post(MESSAGES + "/batches", {})

    checked(got, 405, "invalid_request_error")
    checked(batches, 404, "not_found_error")


@pytest.mark.parametrize("path", [MESSAGES, COUNT])
async def test_a_missing_key_is_an_error(path: str, tmp_path: Path) -> None:
    keys = a_secret(tmp_path, "keys", "a-key-of-some-length-1")
    async with fake_node() as node, endpoint(node, api_key_file=keys) as balancer:
        small = await balancer.post(path, ask())
        large = await balancer.post(path, b" " * 2**20)

    checked(small, 401, "authentication_error")
    checked(large, 401, "authentication_error")


async def test_a_body_that_is_too_large_is_an_error() -> None:
    async with fake_node() as node, endpoint(node, body_limit_mib=1) as balancer:
        answer = await balancer.post(MESSAGES, b" " * (2**20 + 1))

    checked(answer, 413, "request_too_large")


async def test_a_head_that_cannot_be_read_is_an_error() -> None:
    head = b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: no\r\n\r\n"
    async with fake_node() as node, endpoint(node) as balancer:
        origin = balancer.balancer.origin
        with socket.create_connection((origin.host, origin.port), PATIENCE) as raw:
            raw.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(raw, head)
            told = await loop.sock_recv(raw, 2**16)

    assert told.startswith(b"HTTP/1.1 400")
    assert b'"type": "error"' in told


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (EngineRefusal(400, {}, LONG), 400, "invalid_request_error"),
        (NodeLost("gone"), 502, "api_error"),
    ],
)
async def test_a_nodes_error_is_passed_on(
    error: EdgeserveError, status: int, kind: str
) -> None:
    async with fake_node() as node, endpoint(node, attempts=1) as balancer:
        node.refuse = error
        answer = await balancer.post(MESSAGES, ask())

    checked(answer, status, kind)


async def test_a_full_fleet_and_an_empty_one_are_errors() -> None:
    one = Behaviour(slots=1)
    async with fake_node("pi", one) as node, endpoint(node, queue=0) as balancer:
        node.say(busy=1)
        await balancer.until(lambda fleet: fleet.nodes[0].report.engines[0].busy > 0)
        busy = await balancer.post(MESSAGES, ask())
        node.refuse = FleetBusy(1)
    async with endpoint() as balancer:
        nobody = await balancer.post(MESSAGES, ask())

    checked(busy, 429, "rate_limit_error")
    assert "retry-after" in busy.headers
    checked(nobody, 503, "overloaded_error")


async def test_a_stream_that_breaks_off_ends_in_anthropics_event() -> None:
    async with fake_node() as node, endpoint(node, resume="off") as balancer:
        node.script = [(OPENING, "broken")]
        answer = await balancer.post(MESSAGES, ask(stream=True))

    *_, name, data = answer.body.decode().strip().split("\n")
    told = json.loads(data.removeprefix("data: "))
    assert name == "event: error"
    assert (told["type"], told["error"]["type"]) == ("error", "api_error")
    assert told["request_id"] == answer.headers["x-edgeserve-request-id"]


async def test_an_error_of_the_engines_inside_a_stream_has_that_shape_too() -> None:
    error = b'event: error\ndata: {"error":{"code":400,"message":"no","type":"x"}}\n\n'
    async with fake_node() as node, endpoint(node) as balancer:
        node.script = [(OPENING + error, "whole")]
        answer = await balancer.post(MESSAGES, ask(stream=True))

    told = json.loads(answer.body.rpartition(b"data: ")[2])
    assert (told["type"], told["error"]["message"]) == ("error", "no")
    assert told["error"]["type"] == "invalid_request_error"
