"""What is noticed of pictures and sound in a request, and what is not taken for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from balancer.validation.abilities import media

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aaaa"}}
SOUND = {"type": "input_audio", "input_audio": {"data": "aaaa", "format": "wav"}}
SHOWN = {"type": "image", "source": {"type": "base64", "data": "aaaa"}}


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def user(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


@pytest.mark.parametrize(
    ("request_body", "needs"),
    [
        (body(messages=user(IMAGE)), {"vision"}),
        (body(messages=user(IMAGE, SOUND)), {"vision", "audio"}),
        (body(messages=user(SHOWN)), {"vision"}),
        (body(messages=user({"type": "tool_result", "content": [SHOWN]})), {"vision"}),
        (body(input=user({"type": "input_image", "image_url": "x"})), {"vision"}),
        (
            body(
                input=[
                    {
                        "type": "function_call_output",
                        "output": [{"type": "input_image"}],
                    }
                ]
            ),
            {"vision"},
        ),
    ],
)
def test_what_is_sent_is_needed(request_body: bytes, needs: set[str]) -> None:
    assert media(request_body) == needs


def test_a_prompt_may_carry_data() -> None:
    prompt = [{"prompt_string": "a", "multimodal_data": ["b"]}]

    assert media(body(prompt=prompt), json.dumps(prompt).encode()) == {"vision"}
    assert not media(body(prompt=["a"]), b'["a"]')


@pytest.mark.parametrize(
    "request_body",
    [
        body(messages=[{"role": "user", "content": 'what is "image_url"?'}]),
        body(messages=user({"type": "text", "text": "image"})),
        body(tools=[{"parameters": {"properties": {"image": {"type": "string"}}}}]),
        body(tools=[{"function": {"name": "image"}}], messages=[]),
        body(response_format={"json_schema": {"schema": {"enum": ["image"]}}}),
        body(messages=[{"role": "assistant", "tool_calls": [{"type": "image"}]}]),
        body(messages="image"),
        body(messages={"content": 3}, input=None, prompt=["image"]),
        body(model="image-chat"),
    ],
)
def test_talk_of_it_is_none(request_body: bytes) -> None:
    assert not media(request_body)
