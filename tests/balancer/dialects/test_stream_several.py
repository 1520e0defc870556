"""One stream that holds several answers: whole when all of them are."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.dialects import DIALECTS
from balancer.dialects.native import Native
from balancer.dialects.stream import DialectStream
from balancer.failover.resume import Finish, RefuseResume, resume
from edgeserve.openai import ROUTES
from tests.balancer.api.test_inference import events
from tests.balancer.endpoint import CHAT, Endpoint, chat, endpoint
from tests.fakes.node import FakeNode, fake_node

DONE = b"data: [DONE]\n\n"
PROGRESS = {"total": 2, "cache": 0, "processed": 1, "time_ms": 3}
NAMES = {"id": "a", "created": 1, "model": "m", "system_fingerprint": "b0"}
Event = dict[str, Any]


def sse(event: Event) -> bytes:
    return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"


def of_chat(index: int, text: str, *, end: bool, read: bool) -> Event:
    delta: Event = {"content": text} if text else {}
    if read:
        delta = {"role": "assistant", "content": None}
    choice = {"finish_reason": "stop" if end else None, "index": index, "delta": delta}
    return {"choices": [choice], **NAMES} | _read(read)


def of_completion(index: int, text: str, *, end: bool, read: bool) -> Event:
    choice = {"text": text, "index": index, "finish_reason": "stop" if end else None}
    return {"choices": [choice], **NAMES} | _read(read)


def of_native(index: int, text: str, *, end: bool, read: bool) -> Event:
    tokens = [0] if read else []
    event = {"index": index, "content": text, "tokens": tokens, "stop": end}
    return event | _read(read)


def _read(read: bool) -> Event:
    return {"prompt_progress": PROGRESS} if read else {}


SHAPES: dict[str, tuple[Callable[..., Event], dict[str, Any]]] = {
    CHAT: (of_chat, {"n": 2}),
    "/v1/completions": (of_completion, {"prompt": ["a", "b"]}),
    "/completion": (of_native, {"prompt": ["a", "b"]}),
    "/infill": (of_native, {"n_cmpl": 2}),
}
PATHS = list(SHAPES)


def stream(path: str) -> list[bytes]:
    """Two answers: the first ends while the second is still being read."""
    shape = SHAPES[path][0]
    told = [
        shape(0, "", end=False, read=True),
        shape(0, "Hi", end=False, read=False),
        shape(1, "", end=False, read=True),
        shape(0, "", end=True, read=False),
        shape(1, "", end=False, read=True),
        shape(1, "Ho", end=False, read=False),
        shape(1, " ho", end=False, read=False),
        shape(1, "", end=True, read=False),
    ]
    mark = [] if "completion" not in path or path == "/completion" else [DONE]
    return [*map(sse, told), *mark]


def asked(path: str, **fields: Any) -> dict[str, Any]:
    return {**chat(), "prompt": "x", **SHAPES[path][1], **fields}


def reader_of(path: str) -> DialectStream:
    dialect = DIALECTS[ROUTES[path].dialect]
    ends = 2 if dialect is Native else 1
    return DialectStream(dialect, hides=True, ends=ends)


@pytest.mark.parametrize("path", PATHS)
def test_the_end_of_the_first_is_not_the_end_of_all(path: str) -> None:
    told = stream(path)
    reader = reader_of(path)

    for each in told[:-1]:
        reader.feed(each)
        assert not reader.ended
    reader.feed(told[-1])

    assert reader.ended


@pytest.mark.parametrize("path", PATHS)
@given(cuts=st.lists(st.integers(0, 2000), max_size=8))
def test_what_was_not_asked_for_is_hidden_in_every_part(
    path: str, cuts: list[int]
) -> None:
    whole = b"".join(stream(path))
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    reader = reader_of(path)

    passed = b"".join(reader.feed(whole[a:b]) for a, b in pairwise(places))

    assert passed == b"".join(
        each for each in stream(path) if b"prompt_progress" not in each
    )
    assert reader.ended


@pytest.mark.parametrize("path", PATHS)
def test_an_answer_is_complete_but_for_its_mark_once_all_its_parts_are(
    path: str,
) -> None:
    told = stream(path)
    body = json.dumps(asked(path)).encode()
    last = next(n for n, each in enumerate(told) if each == sse_end(path)) + 1

    for cut in range(2, last):
        outcome = resume(body, ROUTES[path], [b"".join(told[:cut])])
        assert isinstance(outcome, RefuseResume)
        assert "several" in outcome.reason
    whole = resume(body, ROUTES[path], [b"".join(told[:last])])

    assert whole == Finish(b"".join(told[last:]))


def sse_end(path: str) -> bytes:
    return sse(SHAPES[path][0](1, "", end=True, read=False))


@asynccontextmanager
async def broken_after(
    path: str, count: int
) -> AsyncGenerator[tuple[Endpoint, FakeNode, FakeNode]]:
    """Run two nodes: the first breaks off after some events, the other is well."""
    async with (
        fake_node("a-breaks") as first,
        fake_node("b-well") as second,
        endpoint(first, second) as balancer,
    ):
        told = stream(path)
        first.script = [(b"".join(told[:count]), "broken")]
        second.script = [(b"".join(told), "whole")]
        yield balancer, first, second


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("count", [4, 6])
async def test_a_stream_whose_second_answer_is_cut_ends_in_an_error(
    path: str, count: int
) -> None:
    async with broken_after(path, count) as (balancer, _, well):
        answer = await balancer.post(path, asked(path, stream=True))

    assert "several" in events(answer.body)[-1]["error"]["message"]
    assert DONE not in answer.body
    assert b"prompt_progress" not in answer.body
    assert well.told == []


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("count", [4, 6])
async def test_a_request_without_streaming_gets_all_of_several_answers(
    path: str, count: int
) -> None:
    async with broken_after(path, count) as (balancer, _, well):
        answer = await balancer.post(path, asked(path))

    assert answer.status == 200
    assert texts(answer.json) == ["Hi", "Ho ho"]
    assert len(well.told) == 1


def texts(body: Any) -> list[str]:
    """The texts of a whole body of any of these routes."""
    if isinstance(body, list):
        return [each["content"] for each in body]
    choices = [each.get("message", each) for each in body["choices"]]
    return [each.get("content", each.get("text")) for each in choices]


@pytest.mark.parametrize("path", PATHS)
async def test_a_whole_stream_of_several_answers_passes(path: str) -> None:
    async with fake_node() as node, endpoint(node) as balancer:
        node.script = [(b"".join(stream(path)), "whole")]
        answer = await balancer.post(path, asked(path, stream=True))
        record = (await balancer.get("/edgeserve/v1/requests")).json[0]

    assert len(events(answer.body)) == 5
    assert record["outcome"] == "answered"
