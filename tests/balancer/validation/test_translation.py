"""What llama.cpp would pass over is said in its words, or refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from balancer.request import InferenceRequest, read_request
from edgeserve.errors import BadRequest
from edgeserve.openai import ROUTES
from tests.fakes.reports import an_engine

CHAT, TEXT, NATIVE = "/v1/chat/completions", "/v1/completions", "/completion"
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
OTHER = {"type": "function", "function": {"name": "other"}}
TOOL = {"type": "function", "function": {"name": "weather"}}
FLAT = [{"type": "function", "name": "other"}, {"type": "function", "name": "weather"}]
THEIRS = [{"name": "other", "input_schema": {}}, {"name": "weather"}]


def work(path: str, **fields: Any) -> InferenceRequest:
    return read_request(ROUTES[path], json.dumps(fields).encode())


def sent(path: str, **fields: Any) -> dict[str, Any]:
    body = work(path, **fields).body_for(an_engine())
    return json.loads(body)  # type: ignore[no-any-return]


def refused(path: str, **fields: Any) -> str:
    with pytest.raises(BadRequest) as told:
        work(path, **fields)
    return str(told.value)


def test_a_schema_for_a_response_is_one_for_a_chat() -> None:
    shape = {"type": "json_schema", "name": "n", "strict": True, "schema": SCHEMA}

    body = sent(RESPONSES, input="Hi", text={"format": shape, "verbosity": "low"})

    wanted = {"name": "n", "strict": True, "schema": SCHEMA}
    assert body["response_format"] == {"type": "json_schema", "json_schema": wanted}


@pytest.mark.parametrize("text", [None, {}, {"format": {"type": "text"}}, "x"])
def test_a_response_of_plain_text_stays_as_it_is(text: Any) -> None:
    assert "response_format" not in sent(RESPONSES, input="Hi", text=text)


def test_a_response_may_be_any_json() -> None:
    body = sent(RESPONSES, input="Hi", text={"format": {"type": "json_object"}})

    assert body["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize("path", [TEXT, NATIVE])
def test_a_completion_has_a_format_too(path: str) -> None:
    shape = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}

    assert sent(path, prompt="x", response_format=shape)["json_schema"] == SCHEMA


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {"response_format": "json"}),
        (CHAT, {"response_format": {"type": "json_schema"}}),
        (CHAT, {"response_format": {"type": "json_schema", "json_schema": 5}}),
        (
            CHAT,
            {"response_format": {"type": "json_schema", "json_schema": {"schema": 5}}},
        ),
        (CHAT, {"response_format": {"type": "json_object", "schema": {"type": "x"}}}),
        (CHAT, {"json_schema": 5}),
        (NATIVE, {"json_schema": {"type": "strng"}}),
        (TEXT, {"json_schema": {"$ref": "#/nowhere"}}),
        (RESPONSES, {"text": {"format": {"type": "json_schema"}}}),
        (RESPONSES, {"text": {"format": {"type": "json_schema", "schema": 5}}}),
        (RESPONSES, {"text": {"format": {"type": "grammar"}}}),
        (RESPONSES, {"text": {"format": "json"}}),
        (RESPONSES, {"previous_response_id": "resp_1"}),
        (RESPONSES, {"conversation": "conv_1"}),
        (RESPONSES, {"background": True}),
        (RESPONSES, {"n": 2}),
        (MESSAGES, {"n": 2}),
        (MESSAGES, {"output_format": {"type": "json_schema", "schema": SCHEMA}}),
        (MESSAGES, {"output_config": {"format": {"type": "json_schema"}}}),
        (TEXT, {"echo": True}),
        (TEXT, {"suffix": "the end"}),
        (TEXT, {"best_of": 3}),
        (CHAT, {"tool_choice": "required"}),
        (CHAT, {"tool_choice": "required", "tools": []}),
        (CHAT, {"tool_choice": TOOL, "tools": [OTHER]}),
        (MESSAGES, {"tool_choice": {"type": "tool", "name": "x"}, "tools": THEIRS}),
    ],
)
def test_what_cannot_be_done_is_refused(path: str, fields: dict[str, Any]) -> None:
    given = {"messages": [], "input": "Hi", "prompt": "x", **fields}

    told = refused(path, **given)

    assert any(key in told for key in ("`", "schema"))


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (RESPONSES, {"store": True, "background": False, "previous_response_id": None}),
        (MESSAGES, {"output_config": {"effort": "low"}}),
        (TEXT, {"echo": False, "suffix": None, "best_of": 1}),
        (TEXT, {"n": 2, "best_of": 2}),
        (CHAT, {"response_format": {"type": "text"}, "tool_choice": "auto"}),
        (CHAT, {"response_format": {"type": "json_object"}, "tools": [TOOL]}),
    ],
)
def test_what_makes_no_difference_passes(path: str, fields: dict[str, Any]) -> None:
    assert not work(path, **fields).edits.keys() - {"json_schema"}


@pytest.mark.parametrize(
    ("path", "choice", "tools"),
    [
        (CHAT, TOOL, [OTHER, TOOL]),
        (RESPONSES, {"type": "function", "name": "weather"}, FLAT),
        (MESSAGES, {"type": "tool", "name": "weather"}, THEIRS),
        (
            CHAT,
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [TOOL]},
            },
            [OTHER, TOOL],
        ),
    ],
)
def test_a_named_tool_is_the_only_one(path: str, choice: Any, tools: list[Any]) -> None:
    body = sent(path, tool_choice=choice, tools=tools)

    assert body["tools"] == tools[1:]
    assert body["tool_choice"] == ({"type": "any"} if path == MESSAGES else "required")
    assert (
        "tools" in work(path, tool_choice=choice, tools=tools).routing.extra_abilities
    )


def test_all_tools_stay_where_any_will_do() -> None:
    body = sent(CHAT, tool_choice="required", tools=[OTHER, TOOL])

    assert body["tools"] == [OTHER, TOOL]
    assert work(CHAT, tool_choice="required", tools=[TOOL]).routing.extra_abilities == {
        "tools"
    }
    assert not work(CHAT, tool_choice="auto", tools=[TOOL]).routing.extra_abilities


def test_anthropics_way_to_forbid_tools_leaves_none() -> None:
    assert sent(MESSAGES, tool_choice={"type": "none"}, tools=THEIRS)["tools"] == []
