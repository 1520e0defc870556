"""Streams of `/completion` whose last event holds only what the client asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from balancer.dialects.native import Native
from balancer.dialects.stream import DialectStream
from balancer.failover.resume import Finish, Resume, resume
from edgeserve.openai import ROUTES
from tests.balancer.api.test_inference import events
from tests.balancer.dialects.test_stream_several import sse
from tests.balancer.endpoint import endpoint
from tests.fakes.node import fake_node

NATIVE = "/completion"
ENDS: list[dict[str, Any]] = [
    {},
    {"content": ""},
    {"stop": True},
    {"index": 0, "timings/predicted_n": 2},
]


def token(text: str, index: int = 0) -> bytes:
    ids = {"tokens": [5], "stop": False, "tokens_predicted": 1, "tokens_evaluated": 2}
    return sse({"index": index, "content": text, **ids})


def asked(**fields: Any) -> dict[str, Any]:
    body = {"model": "small", "prompt": "x", "stream": True}
    return {**body, "response_fields": ["content"], **fields}


@pytest.mark.parametrize("end", ENDS)
def test_a_filtered_end_is_an_end(end: dict[str, Any]) -> None:
    reader = DialectStream(Native, filtered=True)

    reader.feed(token('"stop":true and \ndata: {}\n\n'))
    assert not reader.ended
    reader.feed(sse(end) + b"\n")

    assert reader.ended


def test_each_of_several_prompts_has_a_filtered_end() -> None:
    reader = DialectStream(Native, filtered=True, ends=2)

    reader.feed(token("a") + b":\n\n" + token("b", 1) + sse({"content": ""}))
    assert not reader.ended
    reader.feed(token("b", 1))
    assert not reader.ended
    reader.feed(sse({"content": ""}))

    assert reader.ended


def test_an_answer_without_text_may_be_all_filtered() -> None:
    reader = DialectStream(Native, filtered=True)

    assert reader.feed(sse({"content": ""})) == sse({"content": ""})
    assert reader.ended


@pytest.mark.parametrize("end", ENDS)
async def test_a_filtered_stream_is_a_whole_answer(end: dict[str, Any]) -> None:
    told = token("Hi") + token(" there") + sse(end)
    async with (
        fake_node("a") as first,
        fake_node("b") as second,
        endpoint(first, second) as balancer,
    ):
        first.script = second.script = [(told, "whole")]
        answer = await balancer.post(NATIVE, asked())
        record = (await balancer.get("/edgeserve/v1/requests")).json[0]
        nodes = (await balancer.get("/edgeserve/v1/nodes")).json

    assert answer.body == told
    assert record["outcome"] == "answered"
    assert len(first.told + second.told) == 1
    assert [each["health"] for each in nodes] == [{}, {}]


async def test_a_filtered_stream_that_breaks_off_goes_on_elsewhere() -> None:
    async with (
        fake_node("a") as first,
        fake_node("b") as second,
        endpoint(first, second) as balancer,
    ):
        first.script = [(token("Hi"), "broken")]
        second.script = [(token(" there") + sse({"content": ""}), "whole")]
        answer = await balancer.post(NATIVE, asked())

    assert [each["content"] for each in events(answer.body)] == ["Hi", " there", ""]
    assert [*events(answer.body)[-1]] == ["content"]


def test_what_we_end_ourselves_is_filtered_too() -> None:
    body = json.dumps(asked(n_predict=1)).encode()

    outcome = resume(body, ROUTES[NATIVE], [token("Hi")])
    longer = resume(body.replace(b": 1", b": 2"), ROUTES[NATIVE], [token("Hi")])

    assert outcome == Finish(sse({"content": ""}))
    assert isinstance(longer, Resume)
