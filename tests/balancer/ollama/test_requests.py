"""What an engine is asked, for what a client of Ollama's API asks."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from balancer.ollama.requests import EngineRequest, engine_request
from edgeserve.errors import BadRequest

HI = [{"role": "user", "content": "hi"}]


def chat(**fields: Any) -> EngineRequest:
    asked = {"model": "m", "messages": HI, **fields}
    return engine_request("/api/chat", json.dumps(asked).encode())


def generate(**fields: Any) -> EngineRequest:
    asked = {"model": "m", "prompt": "hi", **fields}
    return engine_request("/api/generate", json.dumps(asked).encode())


def test_a_chat_streams_unless_it_says_otherwise() -> None:
    assert chat().body == {
        "model": "m",
        "messages": HI,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert chat(stream=False).body == {"model": "m", "messages": HI}


def test_options_are_llama_cpps_by_their_names_and_others_are_left_out() -> None:
    options = {"temperature": 0.5, "top_k": 4, "stop": ["a"], "seed": None}
    options |= {"num_predict": 7, "num_ctx": 99, "num_gpu": 3, "num_thread": 2}
    asked = chat(options=options, stream=False)

    assert asked.body == {
        "model": "m",
        "messages": HI,
        "temperature": 0.5,
        "top_k": 4,
        "stop": ["a"],
        "max_tokens": 7,
    }
    assert asked.ignored == ("options.num_ctx",)
    assert "max_tokens" not in chat(options={"num_predict": -1}).body


def test_tools_go_both_ways_with_ids_and_arguments_as_text() -> None:
    calls = [
        {"function": {"name": "sum", "arguments": {"a": 1}}},
        {"function": {"name": "now", "arguments": {}}},
    ]
    conversation = [
        *HI,
        {"role": "assistant", "tool_calls": calls, "thinking": "hm"},
        {"role": "tool", "tool_name": "now", "content": "noon"},
        {"role": "tool", "content": "2"},
    ]
    _, made, now, added = chat(messages=conversation).body["messages"]

    assert [each["id"] for each in made["tool_calls"]] == ["call_1", "call_2"]
    assert made["tool_calls"][0]["function"] == {"name": "sum", "arguments": '{"a":1}'}
    assert made["reasoning_content"] == "hm"
    assert (now["tool_call_id"], added["tool_call_id"]) == ("call_2", "call_1")


def test_images_become_data_urls_of_their_kind() -> None:
    asked = chat(
        messages=[{"role": "user", "content": "x", "images": ["iVBORw0KGgo="]}]
    )
    text, image = asked.body["messages"][0]["content"]

    assert text == {"type": "text", "text": "x"}
    assert image["image_url"]["url"] == "data:image/png;base64,iVBORw0KGgo="


@pytest.mark.parametrize(
    ("fields", "put"),
    [
        ({"format": "json"}, {"response_format": {"type": "json_object"}}),
        (
            {"format": {"type": "object"}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "format", "schema": {"type": "object"}},
                }
            },
        ),
        ({"think": False}, {"chat_template_kwargs": {"enable_thinking": False}}),
        (
            {"think": "high"},
            {
                "chat_template_kwargs": {
                    "enable_thinking": True,
                    "reasoning_effort": "high",
                }
            },
        ),
        (
            {"logprobs": True, "top_logprobs": 2},
            {"logprobs": True, "top_logprobs": 2},
        ),
    ],
)
def test_format_thinking_and_log_probabilities_are_translated(
    fields: dict[str, Any], put: dict[str, Any]
) -> None:
    assert chat(stream=False, **fields).body == {"model": "m", "messages": HI, **put}


def test_a_prompt_becomes_a_chat_a_completion_or_what_fits_between() -> None:
    raw = generate(raw=True, stream=False, options={"num_predict": 3})
    between = generate(suffix="end", stream=False, options={"num_predict": 3})

    assert generate(stream=False).body["messages"] == HI
    assert (raw.path, raw.body["prompt"]) == ("/v1/completions", "hi")
    assert between.path == "/infill"
    assert between.body == {
        "model": "m",
        "input_prefix": "hi",
        "input_suffix": "end",
        "n_predict": 3,
    }


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"template": "{{ .Prompt }}"}, "`template`"),
        ({"context": [1, 2]}, "/api/chat"),
        ({"raw": True, "system": "x"}, "no template"),
        ({"model": ""}, "/api/tags"),
        ({"think": "a lot"}, "`think`"),
        ({"format": "yaml"}, "`format`"),
        ({"images": ["http://a/b.png"]}, "base64"),
        ({"options": 3}, "not valid"),
        ({"keep_alive": "soon"}, "`keep_alive`"),
        ({"keep_alive": "5 m"}, "`keep_alive`"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_sentence(
    fields: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(BadRequest, match=sentence):
        generate(**fields)


@pytest.mark.parametrize("zero", [0, 0.0, "0", "0s", "0m", "-0"])
def test_a_keep_alive_of_zero_unloads(zero: Any) -> None:
    idle = generate(prompt="", keep_alive=zero)

    assert chat(keep_alive=zero).keep_alive == 0
    assert (idle.keep_alive, idle.path) == (0, "")


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        *((None, None), ("", None), (300, 300), ("300", 300), ("5m", 300)),
        *(("1h30m", 5400), ("1.5h", 5400), ("250ms", 0.25), ("1h0m1s", 3601)),
        *((-1, math.inf), ("-1", math.inf), ("-1m", math.inf), ("-1s", math.inf)),
    ],
)
def test_a_keep_alive_is_a_time_or_for_ever(asked: Any, seconds: float | None) -> None:
    assert chat(keep_alive=asked).keep_alive == seconds
    assert generate(prompt="", keep_alive=asked).keep_alive == seconds


def test_without_a_prompt_a_model_is_only_loaded() -> None:
    idle = engine_request("/api/chat", b'{"model": "m"}')

    assert (idle.loads, idle.path) == (True, "/tokenize")
    assert engine_request("/api/embed", b'{"model": "m", "input": []}').loads
