"""What no small model can be made to say: thoughts, and streams that break."""

from __future__ import annotations

import json
from typing import Any

import pytest

from balancer.dialects import DIALECTS
from balancer.dialects.base import Headless, Incomplete, StreamedError
from edgeserve.http.sse import EventReader
from edgeserve.openai import DialectName

HEAD: dict[str, Any] = {
    "created": 1,
    "id": "c",
    "model": "m",
    "system_fingerprint": "b",
    "object": "x",
}
DONE = b"data: [DONE]\n\n"


def data(name: str | None = None, **fields: Any) -> bytes:
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + json.dumps(fields).encode() + b"\n\n"


def named(name: str, **fields: Any) -> bytes:
    return data(name, type=name, **fields)


def delta(finish: str | None = None, index: int = 0, **said: Any) -> bytes:
    choice = {"finish_reason": finish, "index": index, "delta": said}
    return data(choices=[choice], **HEAD)


def put_together(dialect: DialectName, *events: bytes) -> Any:
    whole = DIALECTS[dialect].aggregate()
    for event in EventReader().feed(b"".join(events)):
        whole.add(event)
    return json.loads(whole.body())


def test_thoughts_are_kept_apart_from_the_answer() -> None:
    body = put_together(
        "chat",
        delta(role="assistant", content=None),
        delta(reasoning_content="Hm, "),
        delta(reasoning_content="well."),
        delta(content="Yes"),
        delta("stop"),
        data(choices=[], usage={"total_tokens": 9}, timings={"cache_n": 1}, **HEAD),
        DONE,
    )

    assert body["choices"][0]["message"] == {
        "role": "assistant",
        "content": "Yes",
        "reasoning_content": "Hm, well.",
    }
    assert (body["usage"], body["timings"]) == ({"total_tokens": 9}, {"cache_n": 1})


def test_several_tool_calls_are_kept_apart() -> None:
    def call(index: int, **fields: Any) -> bytes:
        return delta(tool_calls=[{"index": index, **fields}])

    body = put_together(
        "chat",
        call(0, id="a", type="function", function={"name": "f"}),
        call(0, function={"arguments": '{"x"'}),
        call(1, id="b", type="function", function={"name": "g", "arguments": "{}"}),
        call(0, function={"arguments": ":1}"}),
        delta("tool_calls"),
        DONE,
    )

    assert body["choices"][0]["message"]["tool_calls"] == [
        {
            "type": "function",
            "function": {"name": "f", "arguments": '{"x":1}'},
            "id": "a",
        },
        {"type": "function", "function": {"name": "g", "arguments": "{}"}, "id": "b"},
    ]


def test_usage_is_that_of_the_first_choice_whichever_ends_first() -> None:
    body = put_together(
        "chat",
        delta(index=1, content="b"),
        delta(index=0, content="a"),
        delta("stop", index=1),
        data(choices=[], usage={"total_tokens": 2}, **HEAD),
        delta("stop", index=0),
        data(choices=[], usage={"total_tokens": 1}, **HEAD),
        DONE,
    )

    assert [each["message"]["content"] for each in body["choices"]] == ["a", "b"]
    assert body["usage"] == {"total_tokens": 1}


def test_progress_and_pings_leave_no_trace() -> None:
    body = put_together(
        "chat",
        b":\n\n",
        data(
            choices=[
                {"finish_reason": None, "index": 0, "delta": {"role": "assistant"}}
            ],
            prompt_progress={"total": 9},
            **HEAD,
        ),
        delta(content="a"),
        delta("length"),
        DONE,
    )

    assert "prompt_progress" not in body
    assert body["choices"][0]["finish_reason"] == "length"


def message_start() -> bytes:
    usage = {"cache_read_input_tokens": 1, "input_tokens": 2, "output_tokens": 0}
    return named("message_start", message={"id": "m", "content": [], "usage": usage})


def message_end(reason: str = "end_turn") -> bytes:
    return named(
        "message_delta",
        delta={"stop_reason": reason, "stop_sequence": None},
        usage={"output_tokens": 7},
    ) + named("message_stop")


def block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> bytes:
    opened = named("content_block_start", index=index, content_block=start)
    pieces = [named("content_block_delta", index=index, delta=each) for each in deltas]
    return opened + b"".join(pieces) + named("content_block_stop", index=index)


def test_a_message_has_its_thoughts_its_text_and_its_tools() -> None:
    body = put_together(
        "messages",
        message_start(),
        block(
            0,
            {"type": "thinking", "thinking": ""},
            {"type": "thinking_delta", "thinking": "Hm"},
            {"type": "signature_delta", "signature": ""},
        ),
        block(1, {"type": "text", "text": ""}, {"type": "text_delta", "text": "Yes"}),
        block(
            2,
            {"type": "tool_use", "id": "t", "name": "f"},
            {"type": "input_json_delta", "partial_json": '{"x":'},
            {"type": "input_json_delta", "partial_json": "1}"},
        ),
        message_end("tool_use"),
    )

    assert body["content"] == [
        {"type": "thinking", "thinking": "Hm", "signature": ""},
        {"type": "text", "text": "Yes"},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}},
    ]
    assert body["stop_reason"] == "tool_use"
    assert body["usage"] == {
        "cache_read_input_tokens": 1,
        "input_tokens": 2,
        "output_tokens": 7,
    }


def test_a_tool_without_arguments_has_none() -> None:
    body = put_together(
        "messages",
        message_start(),
        block(0, {"type": "tool_use", "id": "t", "name": "f"}),
        message_end(),
    )

    assert body["content"][0]["input"] == {}


def test_a_message_whose_head_was_never_sent_must_be_asked_for_anew() -> None:
    with pytest.raises(Headless):
        put_together("messages", message_end())


def test_a_response_gets_the_keys_that_streams_leave_out() -> None:
    thought = {"type": "reasoning", "id": "r", "content": []}
    response = {"id": "x", "created_at": 5, "output": [thought], "status": "completed"}

    body = put_together("responses", named("response.completed", response=response))

    assert body["completed_at"] == 5
    assert body["output"] == [{**thought, "status": "completed"}]


@pytest.mark.parametrize(
    ("dialect", "events"),
    [
        ("chat", [delta(content="a")]),
        ("chat", [delta(content="a"), delta("stop")]),
        ("chat", [DONE]),
        ("completion", [data(choices=[], **HEAD)]),
        ("native", [data(index=0, content="a", stop=False)]),
        ("responses", [named("response.created", response={})]),
        ("messages", [message_start()]),
    ],
)
def test_a_stream_that_was_cut_is_no_answer(
    dialect: DialectName, events: list[bytes]
) -> None:
    with pytest.raises(Incomplete):
        put_together(dialect, *events)


def test_one_of_two_prompts_is_no_answer() -> None:
    with pytest.raises(Incomplete):
        put_together(
            "native",
            data(index=1, content="b", stop=False),
            data(index=0, content="", stop=True, generation_settings={}),
        )


@pytest.mark.parametrize("dialect", ["chat", "native", "messages"])
def test_an_error_in_the_stream_is_the_answer(dialect: DialectName) -> None:
    with pytest.raises(StreamedError) as told:
        put_together(dialect, data(error={"code": 400, "message": "no"}))

    assert told.value.status == 400
