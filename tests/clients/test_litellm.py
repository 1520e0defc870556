"""LiteLLM's package: the balancer as `openai/` and as `ollama_chat/`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.clients.conftest import (
    ASK,
    CITY,
    LIMIT_SECONDS,
    MODEL,
    TOOLS,
    WRONG,
    Fleet,
    client,
)

litellm = client("litellm")

EXACT = {"temperature": 0, "max_tokens": 12}
SCHEMA = {"name": "place", "strict": True, "schema": CITY}
PROVIDERS = pytest.mark.parametrize("provider", ["openai", "ollama_chat"])


def options(fleet: Fleet, provider: str, **more: Any) -> dict[str, Any]:
    return {
        "model": f"{provider}/{MODEL}",
        "api_base": fleet.v1 if provider == "openai" else fleet.url,
        "api_key": fleet.key,
        "timeout": LIMIT_SECONDS,
        **more,
    }


@PROVIDERS
def test_a_stream_says_the_same_as_a_whole_answer(fleet: Fleet, provider: str) -> None:
    asked = options(fleet, provider, messages=ASK, **EXACT)
    whole = litellm.completion(**asked)
    usage = {"include_usage": True}
    chunks = list(litellm.completion(**asked, stream=True, stream_options=usage))

    told = [each.choices[0].delta for each in chunks if each.choices]
    text = "".join(each.content or "" for each in told)
    assert text == whole.choices[0].message.content
    assert whole.usage.completion_tokens == 12
    assert chunks[-1].usage.completion_tokens == 12


@PROVIDERS
def test_a_tool_is_called_at_once_and_in_a_stream(fleet: Fleet, provider: str) -> None:
    asked = options(fleet, provider, messages=ASK, tools=TOOLS, temperature=0)
    whole = litellm.completion(**asked, max_tokens=60)
    chunks = list(litellm.completion(**asked, max_tokens=60, stream=True))
    built = litellm.stream_chunk_builder(chunks, messages=ASK)

    (call,), (streamed,) = (a.choices[0].message.tool_calls for a in (whole, built))
    for each in (call, streamed):
        assert each.function.name == "weather"
        assert json.loads(each.function.arguments)["city"] in {"Paris", "Rome"}
    told = [
        *ASK,
        whole.choices[0].message.model_dump(),
        {"role": "tool", "tool_call_id": call.id, "name": "weather", "content": "rain"},
    ]
    after = litellm.completion(**asked | {"messages": told}, max_tokens=8)
    assert after.choices[0].message.content


@PROVIDERS
def test_a_schema_is_kept(fleet: Fleet, provider: str) -> None:
    form = {"type": "json_schema", "json_schema": SCHEMA}
    asked = options(fleet, provider, messages=ASK, response_format=form)
    answer = litellm.completion(**asked, max_tokens=60)

    assert set(json.loads(answer.choices[0].message.content)) == {"city"}


@pytest.mark.parametrize("provider", ["openai", "ollama"])
def test_embeddings_are_answered(fleet: Fleet, provider: str) -> None:
    answer = litellm.embedding(**options(fleet, provider), input=["a cat", "a dog"])

    assert [len(each["embedding"]) for each in answer.data] == [576, 576]


def test_refusals_are_the_exceptions_that_programs_catch(fleet: Fleet) -> None:
    asked = options(fleet, "openai", messages=ASK, num_retries=0)
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(**asked | {"api_key": WRONG})
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**asked | {"model": "openai/nothing-like-it"})
    text = [{"role": "user", "content": "word " * 9000}]
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(**asked | {"messages": text})
