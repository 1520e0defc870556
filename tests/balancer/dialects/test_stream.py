from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.dialects import DIALECTS
from balancer.dialects.base import StreamedError
from balancer.dialects.stream import DialectStream
from edgeserve.errors import NodeLost
from edgeserve.openai import DialectName


def data(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields, separators=(",", ":")).encode() + b"\n\n"


def named(name: str, **fields: Any) -> bytes:
    return f"event: {name}\n".encode() + data(type=name, **fields)


def delta(*, finish: str | None = None, **said: Any) -> bytes:
    return data(choices=[{"index": 0, "delta": said, "finish_reason": finish}])


def text(said: str, finish: str | None = None) -> bytes:
    return data(choices=[{"index": 0, "text": said, "finish_reason": finish}])


ROLE = delta(role="assistant", content=None)
DONE = b"data: [DONE]\n\n"
PING = b":\n\n"

STREAMS: dict[DialectName, tuple[list[bytes], list[bytes]]] = {
    "chat": ([ROLE], [delta(content="Hi"), delta(finish="stop"), DONE]),
    "completion": ([text("")], [text("Hi"), text("", "stop"), DONE]),
    "native": (
        [data(content="", stop=False)],
        [data(content="Hi", stop=False), data(content="", stop=True)],
    ),
    "responses": (
        [named("response.created"), named("response.in_progress")],
        [
            named("response.output_item.added"),
            named("response.output_text.delta", delta="Hi"),
            named("response.completed", response={}),
        ],
    ),
    "messages": (
        [named("message_start", message={})],
        [
            named("content_block_start"),
            named("content_block_delta"),
            named("message_stop"),
        ],
    ),
}
NAMES = list(STREAMS)


@pytest.mark.parametrize("dialect", NAMES)
def test_what_comes_before_content_is_held_back(dialect: DialectName) -> None:
    before, after = STREAMS[dialect]
    reader = DialectStream(DIALECTS[dialect])

    assert [reader.feed(each) for each in before] == [b""] * len(before)
    assert not reader.begun

    assert reader.feed(after[0]) == b"".join(before) + after[0]
    assert reader.begun


@pytest.mark.parametrize("dialect", NAMES)
def test_a_stream_has_ended_with_its_last_event_and_not_before(
    dialect: DialectName,
) -> None:
    before, after = STREAMS[dialect]
    *most, last = [*before, *after]
    reader = DialectStream(DIALECTS[dialect])

    for each in most:
        reader.feed(each)
    assert not reader.ended

    reader.feed(last)
    assert reader.ended


@pytest.mark.parametrize("dialect", NAMES)
@given(cuts=st.lists(st.integers(0, 400), max_size=8))
def test_every_byte_passes_once_in_order_and_in_whole_events(
    dialect: DialectName, cuts: list[int]
) -> None:
    stream = b"".join([*STREAMS[dialect][0], *STREAMS[dialect][1]])
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    reader = DialectStream(DIALECTS[dialect])

    pieces = [reader.feed(stream[a:b]) for a, b in pairwise(places)]

    assert b"".join(pieces) == stream
    assert all(piece == b"" or piece.endswith(b"\n\n") for piece in pieces)
    assert reader.ended


def test_a_sign_of_life_passes_before_content() -> None:
    reader = DialectStream(DIALECTS["chat"])
    progress = data(choices=[], prompt_progress={"total": 9, "processed": 3})

    assert reader.feed(ROLE + PING) == PING
    assert reader.feed(progress) == progress
    assert not reader.begun


def test_an_event_that_holds_nothing_is_left_out() -> None:
    reader = DialectStream(DIALECTS["completion"])

    assert reader.feed(b"data: null\n\n") == b""
    assert not reader.begun


@pytest.mark.parametrize(
    "event",
    [
        delta(reasoning_content="Hm"),
        delta(tool_calls=[{"index": 0, "function": {"name": "f"}}]),
        delta(finish="stop"),
    ],
)
def test_thoughts_tools_and_ends_are_content(event: bytes) -> None:
    reader = DialectStream(DIALECTS["chat"])

    assert reader.feed(ROLE + event) == ROLE + event


@pytest.mark.parametrize("dialect", ["chat", "completion"])
def test_words_that_look_like_an_end_are_none(dialect: DialectName) -> None:
    words = "\ndata: [DONE]\n\nevent: error\n"
    reader = DialectStream(DIALECTS[dialect])

    reader.feed(delta(content=words) if dialect == "chat" else text(words))

    assert reader.begun
    assert not reader.ended


@pytest.mark.parametrize(
    "event",
    [
        data(error={"code": 503, "message": "gone", "type": "unavailable_error"}),
        b"event: error\n"
        + data(error={"code": 503, "message": "gone", "type": "unavailable_error"}),
    ],
)
def test_an_error_before_content_is_the_engines_answer(event: bytes) -> None:
    with pytest.raises(StreamedError) as told:
        DialectStream(DIALECTS["chat"]).feed(ROLE + event)

    assert told.value.status == 503
    assert json.loads(told.value.body)["error"]["message"] == "gone"


def test_an_error_after_content_is_kept_for_a_resume() -> None:
    reader = DialectStream(DIALECTS["chat"])
    reader.feed(delta(content="Hi"))
    event = data(error={"code": 500, "message": "no"})
    more = delta(content=" there")

    assert reader.feed(more + event + DONE) == more
    assert reader.feed(more) == b""
    assert not reader.ended
    assert reader.error is not None
    assert (reader.error.status, reader.error.raw) == (500, event)


def test_progress_that_the_client_did_not_ask_for_is_noted_and_hidden() -> None:
    reader = DialectStream(DIALECTS["chat"], hides=True)
    progress = data(choices=[], prompt_progress={"total": 9, "processed": 3})

    assert reader.feed(progress) == b""
    assert (reader.worked, reader.prompt) == (True, 9)
    assert not reader.begun


def test_a_response_in_progress_is_sent_once_and_without_its_progress() -> None:
    reader = DialectStream(DIALECTS["responses"], hides=True)
    created = b'event: response.created\ndata: {"type":"response.created"}\n\n'
    going = b'event: response.in_progress\ndata: {"type":"response.in_progress"%b}\n\n'
    read = b',"prompt_progress":{"total":9,"cache":0,"processed":%d}'
    text = b'event: response.output_text.delta\ndata: {"delta":"Hi"}\n\n'

    held = b"".join(map(reader.feed, (created, going % (read % 0), going % (read % 9))))

    assert held == b""
    assert reader.worked
    assert reader.feed(text) == created + going % b"" + text


def test_the_start_of_an_event_is_kept_until_the_rest_comes() -> None:
    reader = DialectStream(DIALECTS["chat"])
    reader.feed(delta(content="Hi"))

    assert reader.feed(b'data: {"cho') == b""


@pytest.mark.parametrize("dialect", NAMES)
def test_a_broken_stream_ends_in_an_error_that_a_client_can_read(
    dialect: DialectName,
) -> None:
    event = DIALECTS[dialect].error_event(NodeLost("pi broke off"))

    lines = event.decode().splitlines()
    body = json.loads(next(line for line in lines if line.startswith("data: "))[6:])
    assert event.endswith(b"\n\n")
    assert body["error"]["message"] == "pi broke off"
    assert (lines[0] == "event: error") == (dialect in {"responses", "messages"})
