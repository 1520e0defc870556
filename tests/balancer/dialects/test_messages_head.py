from __future__ import annotations

from typing import Any

import msgspec
import pytest

from balancer.dialects.base import StreamedError
from balancer.dialects.messages import Messages
from balancer.dialects.stream import DialectStream
from edgeserve.http.sse import parse_event


def named(name: str, **fields: Any) -> bytes:
    data = msgspec.json.encode({"type": name, **fields})
    return f"event: {name}\n".encode() + b"data: " + data + b"\n\n"


START = named("message_start", message={"id": "engine's own", "content": []})
BLOCK = named("content_block_start", index=0, content_block={"type": "text"})
HEART = named("content_block_delta", index=0, delta={"text": "❤"})
STOP = named("message_stop")


def headed(*, hides: bool = True) -> DialectStream:
    head = Messages.head("req-1", "small:Q4_1")
    return DialectStream(Messages, hides=hides, head=head)


def test_a_message_that_begins_with_half_a_letter_gets_its_head() -> None:
    reader = headed()

    out = b"".join(map(reader.feed, (named("ping"), BLOCK + HEART, STOP)))

    head, rest = out.split(b"\n\n", 1)
    first = parse_event(head + b"\n\n")
    assert first.name == "message_start"
    assert msgspec.json.decode(first.data)["message"] == {
        "id": "req-1",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": "small:Q4_1",
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }
    assert rest == named("ping") + BLOCK + HEART + STOP
    assert reader.ended


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("hides", [True, False])
def test_a_message_with_a_head_passes_as_any_stream_does(
    size: int, hides: bool
) -> None:
    stream = START + named("ping") + BLOCK + HEART + STOP
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    reader, other = headed(hides=hides), DialectStream(Messages, hides=hides)

    assert [reader.feed(each) for each in pieces] == [
        other.feed(each) for each in pieces
    ]


def test_an_error_before_content_is_raised_without_a_head() -> None:
    with pytest.raises(StreamedError):
        headed().feed(named("error", error={"code": 500, "message": "out of memory"}))
