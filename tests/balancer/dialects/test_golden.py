"""What is put together from a stream is what the engine sends without one."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from balancer.request import read_request
from edgeserve.http.sse import EventReader
from edgeserve.openai import ROUTES
from tests.balancer.engine import RealEngine, real_engine
from tests.fakes.reports import an_engine

pytestmark = pytest.mark.engine

EXACT = {"temperature": 0, "cache_prompt": False, "seed": 1}
HELLO = [{"role": "user", "content": "Say hello to Ada."}]
WEATHER = {
    "name": "weather",
    "description": "Tell the weather of a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Bern", "Rome"]}},
        "required": ["city"],
    },
}
VOLATILE = {"id", "created", "created_at", "completed_at", "timings", "id_slot"}


@pytest.fixture(autouse=True)
def even_short_answers_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balancer.request.SHORT", 0)


@pytest.fixture(scope="module")
def engine(smollm2: Path) -> Generator[RealEngine]:
    with real_engine(smollm2) as running:
        yield running


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": HELLO, "max_tokens": 8}),
    "chat that ends by itself": (
        "/v1/chat/completions",
        {"messages": HELLO, "max_tokens": 16, "grammar": 'root ::= "Yes."'},
    ),
    "chat with a stop word": (
        "/v1/chat/completions",
        {"messages": HELLO, "max_tokens": 16, "stop": [","]},
    ),
    "chat with two choices": (
        "/v1/chat/completions",
        {"messages": HELLO, "max_tokens": 6, "n": 2},
    ),
    "chat that calls a tool": (
        "/v1/chat/completions",
        {
            "messages": HELLO,
            "max_tokens": 32,
            "tools": [{"type": "function", "function": WEATHER}],
            "tool_choice": "required",
        },
    ),
    "chat as JSON": (
        "/v1/chat/completions",
        {
            "messages": HELLO,
            "max_tokens": 16,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"schema": WEATHER["parameters"]},
            },
        },
    ),
    "chat in other letters": (
        "/v1/chat/completions",
        {"messages": HELLO, "max_tokens": 16, "grammar": 'root ::= "Grüezi 🐈‍⬛ 日本"'},
    ),
    "chat with timings per token": (
        "/v1/chat/completions",
        {
            "messages": HELLO,
            "max_tokens": 4,
            "timings_per_token": True,
            "return_progress": True,
        },
    ),
    "chat with the stream's own options": (
        "/v1/chat/completions",
        {
            "messages": HELLO,
            "max_tokens": 4,
            "stream": False,
            "stream_options": {"include_usage": False},
        },
    ),
    "completion": ("/v1/completions", {"prompt": "One two", "max_tokens": 6}),
    "completion of two prompts": (
        "/v1/completions",
        {"prompt": ["One two", "Red green"], "max_tokens": 6},
    ),
    "completion with two choices": (
        "/v1/completions",
        {"prompt": "One two", "max_tokens": 6, "n": 2},
    ),
    "native": ("/completion", {"prompt": "One two", "n_predict": 6}),
    "native, two prompts": (
        "/completion",
        {"prompt": ["One two", "Red green"], "n_predict": 6},
    ),
    "native, tokens as prompt": (
        "/completion",
        {"prompt": [504, 905, 253], "n_predict": 4},
    ),
    "responses": ("/v1/responses", {"input": "Say hello.", "max_output_tokens": 8}),
    "responses that call a tool": (
        "/v1/responses",
        {
            "input": "What is the weather?",
            "max_output_tokens": 32,
            "tools": [{"type": "function", **WEATHER}],
            "tool_choice": "required",
        },
    ),
    "messages": ("/v1/messages", {"messages": HELLO, "max_tokens": 8}),
    "messages with a stop word": (
        "/v1/messages",
        {"messages": HELLO, "max_tokens": 16, "stop_sequences": [","]},
    ),
    "messages that use a tool": (
        "/v1/messages",
        {
            "messages": HELLO,
            "max_tokens": 32,
            "tools": [{"name": "weather", "input_schema": WEATHER["parameters"]}],
            "tool_choice": {"type": "any"},
        },
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_stream_put_together_is_the_whole_answer(
    engine: RealEngine, case: str
) -> None:
    path, asked = CASES[case]
    body = json.dumps(asked | EXACT).encode()
    status, expected = engine.post(path, body)
    assert status == 200, expected

    assert masked(json.loads(put_together(engine, path, body))) == masked(
        json.loads(expected)
    )


def put_together(engine: RealEngine, path: str, body: bytes) -> bytes:
    work = read_request(ROUTES[path], body)
    assert work.mode == "aggregate"
    status, stream = engine.post(path, work.body_for(an_engine("smol:Q4_1")))
    assert status == 200, stream
    reader, whole = EventReader(), work.dialect.aggregate()
    for event in reader.feed(stream):
        whole.add(event)
    return whole.body()


def masked(value: Any, key: str = "") -> Any:
    """Keep every key, and the type of what differs between two answers.

    Anthropic's format has no way to switch the prompt cache off: only the sum is fixed.
    """
    if key == "usage" and "cache_read_input_tokens" in value:
        value = {
            **value,
            "input_tokens": value["input_tokens"] + value["cache_read_input_tokens"],
        }
        value["cache_read_input_tokens"] = "any"
    if key in VOLATILE or key in {"call_id", "item_id"}:
        return sorted(value) if isinstance(value, dict) else type(value).__name__
    if isinstance(value, dict):
        return {name: masked(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [masked(inner) for inner in value]
    return value
