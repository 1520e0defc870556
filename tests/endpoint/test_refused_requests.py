"""Errors for requests that cannot be answered, on a real engine."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import openai
import pytest

from tests.endpoint.conftest import MODEL, Endpoint
from tests.patience import PATIENCE

pytestmark = pytest.mark.engine

HI: Any = {"role": "user", "content": "Hi"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aaaa"}}
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Bern", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER: Any = {"type": "function", "function": {"name": "w", "parameters": CITY}}
LONG = "word " * 3000


def refused(endpoint: Endpoint, path: str, **fields: Any) -> tuple[int, Any]:
    request = urllib.request.Request(
        endpoint.url + path,
        data=json.dumps({"model": MODEL, **fields}).encode(),
        headers={"content-type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError) as told:
        urllib.request.urlopen(request, timeout=PATIENCE)
    return told.value.code, json.load(told.value)


def test_an_image_is_a_bad_request(endpoint: Endpoint) -> None:
    turn: Any = {"role": "user", "content": [IMAGE]}
    with pytest.raises(openai.BadRequestError, match="cannot look at images"):
        endpoint.client.chat.completions.create(model=MODEL, messages=[turn])


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "w"}}]
)
def test_a_tool_that_must_be_called_is_one(endpoint: Endpoint, choice: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="template knows none"):
        endpoint.client.chat.completions.create(
            model=MODEL, messages=[HI], tools=[WEATHER], tool_choice=choice
        )


def test_more_answers_than_slots_are_one(endpoint: Endpoint) -> None:
    with pytest.raises(openai.BadRequestError, match="ask for 2 at most"):
        endpoint.client.chat.completions.create(model=MODEL, messages=[HI], n=5)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": LONG}]}),
        ("/v1/completions", {"prompt": LONG}),
        ("/completion", {"prompt": LONG}),
        ("/v1/responses", {"input": LONG}),
    ],
)
def test_a_prompt_that_is_too_long_is_an_error_with_both_numbers(
    endpoint: Endpoint, path: str, fields: dict[str, Any], stream: bool
) -> None:
    status, body = refused(endpoint, path, stream=stream, **fields)

    error = body["error"]
    assert (status, error["code"]) == (400, "context_length_exceeded")
    assert error["n_ctx"] == 1024
    assert str(error["n_prompt_tokens"]) in error["message"]


@pytest.mark.parametrize("stream", [True, False])
def test_anthropics_clients_get_errors_in_their_shape(
    endpoint: Endpoint, stream: bool
) -> None:
    turns = [{"role": "user", "content": LONG}]
    status, body = refused(
        endpoint, "/v1/messages", messages=turns, max_tokens=4, stream=stream
    )

    assert status == 400
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    assert "prompt is too long" in body["error"]["message"]


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/infill", {"input_prefix": "a", "input_suffix": "b"}),
        ("/detokenize", {"tokens": [99999999]}),
        ("/v1/rerank", {"query": "a", "documents": ["b"]}),
        ("/completion", {"prompt": "a", "json_schema": {"type": "strng"}}),
    ],
)
def test_what_can_never_succeed_is_400(
    endpoint: Endpoint, path: str, fields: dict[str, Any]
) -> None:
    status, body = refused(endpoint, path, **fields)

    assert status == 400
    assert body["error"]["message"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_response_keeps_to_its_schema(endpoint: Endpoint, stream: bool) -> None:
    shape: Any = {"type": "json_schema", "name": "place", "schema": CITY}
    asked: Any = {
        "model": MODEL,
        "input": "Where is the Colosseum?",
        "text": {"format": shape},
        "max_output_tokens": 64,
        "temperature": 0,
        "stream": stream,
    }
    answer: Any = endpoint.client.responses.create(**asked)
    if stream:
        *_, last = answer
        answer = last.response

    text = "".join(part.text for each in answer.output for part in each.content)
    assert json.loads(text.strip().strip("`").removeprefix("json"))["city"]
