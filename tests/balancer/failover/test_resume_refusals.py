"""Answers that no second engine can take up, and what is said of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from balancer.failover.resume import RefuseResume, Resume, resume
from edgeserve.openai import ROUTES
from tests.balancer.broken_streams import Engine, first, sse

TOOL = {"type": "function", "function": {"name": "f"}}


def outcome(
    path: str = "/v1/chat/completions", given: bytes | None = None, **request: Any
) -> object:
    body = {"messages": [{"role": "user", "content": "Hi"}], "prompt": "Hi"} | request
    stream = first(Engine().chat(["He", "llo"]), 2) if given is None else given
    return resume(json.dumps(body).encode(), ROUTES[path], [stream])


def refused(result: object) -> str:
    assert isinstance(result, RefuseResume)
    return result.reason


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        ({"n": 2}, "several"),
        ({"best_of": 3}, "several"),
        ({"logprobs": True}, "probabilities"),
        ({"n_probs": 5}, "probabilities"),
        ({"grammar": 'root ::= "a"'}, "grammar"),
        ({"json_schema": {}}, "grammar"),
        ({"response_format": {"type": "json_object"}}, "grammar"),
        ({"response_format": {"type": "json_schema"}}, "grammar"),
        ({"tools": [TOOL], "tool_choice": "required"}, "tool"),
        ({"tools": [TOOL], "tool_choice": TOOL}, "tool"),
        ({"echo": True}, "echo"),
        ({"suffix": "end"}, "fill in"),
        ({"continue_final_message": "reasoning_content"}, "continue"),
        ({"add_generation_prompt": False}, "add_generation_prompt"),
        ({"messages": []}, "no messages"),
        ({"messages": [{"role": "assistant", "content": [{}]}]}, "plain text"),
    ],
)
def test_such_requests_are_refused(request_: dict[str, Any], word: str) -> None:
    assert word in refused(outcome(**request_))


@pytest.mark.parametrize(
    "request_",
    [
        {"n": 1, "logprobs": False, "grammar": ""},
        {"n": None, "json_schema": None, "tool_choice": None},
        {"response_format": {"type": "text"}},
        {"tools": [TOOL]},
        {"tools": [TOOL], "tool_choice": "auto"},
        {"stop": ["\n\n"], "seed": 1, "top_k": 5, "unknown": {"a": 1}},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is this?"},
                        {"type": "image_url", "image_url": {"url": "data:..."}},
                    ],
                }
            ]
        },
    ],
)
def test_such_requests_are_not(request_: dict[str, Any]) -> None:
    assert isinstance(outcome(**request_), Resume)


def delta(**said: Any) -> bytes:
    return sse({"choices": [{"index": 0, "delta": said, "finish_reason": None}]})


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (delta(tool_calls=[{"index": 0}]), "tool"),
        (delta(content="Let me look.") + delta(tool_calls=[{"index": 0}]), "tool"),
        (delta(reasoning_content="Hm"), "reasoning"),
        (delta(content="<think>Hm"), "reasoning"),
        (delta(content="a\N{REPLACEMENT CHARACTER}"), "character"),
        (b"data: {oops\n\n", "not JSON"),
        (sse({"error": {"code": 500}}), "error"),
    ],
)
def test_such_answers_are_refused(given: bytes, word: str) -> None:
    assert word in refused(outcome(given=given))


def test_a_closed_think_block_is_no_hindrance() -> None:
    given = delta(content="<think>Hm</think>") + delta(content="Yes")

    assert isinstance(outcome(given=given), Resume)


def test_a_plan_says_whether_the_template_has_to_continue_a_message() -> None:
    body = b'{"messages": [{"role": "user", "content": "Hi"}]}'
    route, stream = ROUTES["/v1/chat/completions"], Engine().chat(["He", "llo"])

    begun = resume(body, route, [first(stream, 2)])
    not_begun = resume(body, route, [first(stream, 1)])

    assert isinstance(begun, Resume)
    assert isinstance(not_begun, Resume)
    assert (begun.continues, not_begun.continues) == (True, False)


@pytest.mark.parametrize(
    ("prompt", "word"),
    [([1, 2, 3], "token ids"), (["a", "b"], "several"), (None, "several")],
)
def test_prompts_that_no_text_can_follow(prompt: object, word: str) -> None:
    given = first(Engine().completion(["a", "b"]), 1)

    assert word in refused(outcome("/v1/completions", given, prompt=prompt))


@pytest.mark.parametrize(
    ("prompt", "longer"),
    [
        ("x", "xa"),
        (["x"], ["xa"]),
        ({"prompt_string": "x", "multimodal_data": []},
         {"prompt_string": "xa", "multimodal_data": []}),
    ],
)  # fmt: skip
def test_prompts_that_text_can_follow(prompt: object, longer: object) -> None:
    given = first(Engine().completion(["a", "b"]), 1)

    result = outcome("/v1/completions", given, prompt=prompt)

    assert isinstance(result, Resume)
    assert json.loads(result.body)["prompt"] == longer


def test_prompts_of_token_ids_go_on_where_the_tokens_are_known() -> None:
    given = first(Engine().native(["a", "b"], [7, 8]), 1)

    result = outcome("/completion", given, prompt=[1, 2])

    assert isinstance(result, Resume)
    assert json.loads(result.body)["prompt"] == [1, 2, 7]


def test_filling_in_between_two_texts_is_refused() -> None:
    given = first(Engine().native(["a", "b"], [7, 8]), 1)

    result = outcome("/infill", given, input_prefix="x", input_suffix="y")

    assert "fill in" in refused(result)


def test_tools_of_the_messages_api_are_refused() -> None:
    given = first(Engine().messages(["a", "b"]), 3)

    assert "tool" in refused(outcome("/v1/messages", given, tools=[TOOL]))


def test_routes_that_never_stream_are_refused() -> None:
    assert "/v1/embeddings" in refused(outcome("/v1/embeddings"))


def test_a_body_that_is_no_json_is_refused() -> None:
    assert isinstance(resume(b"{", ROUTES["/completion"], []), RefuseResume)
