"""OpenAI's Python package: what it is used for, against a real balancer and node."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

import pytest

from tests.clients.conftest import (
    ASK,
    CITY,
    LIMIT_SECONDS,
    MODEL,
    TOOL,
    TOOLS,
    WRONG,
    Fleet,
    client,
)

openai = client("openai")

EXACT = {"temperature": 0, "max_tokens": 12}
SCHEMA = {"name": "place", "strict": True, "schema": CITY}


def asking(fleet: Fleet, **options: Any) -> Any:
    chosen = {"api_key": fleet.key, "max_retries": 0, "timeout": LIMIT_SECONDS}
    return openai.OpenAI(base_url=fleet.v1, **chosen | options)


@pytest.fixture
def sdk(fleet: Fleet) -> Generator[Any]:
    with asking(fleet) as found:
        yield found


def test_models_are_listed_and_each_can_be_asked_for(sdk: Any) -> None:
    assert MODEL in {each.id for each in sdk.models.list()}
    assert sdk.models.retrieve(MODEL).id == MODEL


def test_a_stream_says_the_same_and_counts_the_same(sdk: Any) -> None:
    chat = sdk.chat.completions
    whole = chat.create(model=MODEL, messages=ASK, **EXACT)
    usage = {"include_usage": True}
    chunks = list(
        chat.create(
            model=MODEL, messages=ASK, stream=True, stream_options=usage, **EXACT
        )
    )

    text = "".join(each.choices[0].delta.content or "" for each in chunks[:-1])
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 12


def test_a_tool_is_called_at_once_and_in_a_stream(sdk: Any) -> None:
    asked = {"messages": ASK, "tools": TOOLS, "tool_choice": "required"}
    chat = sdk.chat.completions
    answer = chat.create(model=MODEL, max_tokens=60, **asked)
    (call,) = answer.choices[0].message.tool_calls
    with chat.stream(model=MODEL, max_tokens=60, temperature=0, **asked) as stream:
        streamed = stream.get_final_completion().choices[0]

    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in {"Paris", "Rome"}
    assert streamed.finish_reason == "tool_calls"
    assert streamed.message.tool_calls[0].function.name == "weather"
    told = [
        *ASK,
        answer.choices[0].message,
        {"role": "tool", "tool_call_id": call.id, "content": "rain"},
    ]
    after = chat.create(model=MODEL, messages=told, tools=TOOLS, **EXACT)
    assert after.choices[0].message.content


def test_a_schema_is_kept(sdk: Any) -> None:
    form = {"type": "json_schema", "json_schema": SCHEMA}
    answer = sdk.chat.completions.create(
        model=MODEL, messages=ASK, response_format=form, max_tokens=60
    )

    assert set(json.loads(answer.choices[0].message.content)) == {"city"}


def test_responses_are_created_streamed_and_call_tools(sdk: Any) -> None:
    asked = {"model": MODEL, "input": "Say hello.", "max_output_tokens": 16}
    whole = sdk.responses.create(temperature=0, **asked)
    events = list(sdk.responses.create(temperature=0, stream=True, **asked))
    tool = {"type": "function", "strict": True, **TOOL}
    called = sdk.responses.create(
        **asked | {"max_output_tokens": 60}, tools=[tool], tool_choice="required"
    )

    assert whole.output_text
    assert whole.usage.output_tokens == 16
    deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
    assert "".join(deltas) == whole.output_text
    assert events[-1].type in {"response.completed", "response.incomplete"}
    calls = [each for each in called.output if each.type == "function_call"]
    assert calls[0].name == "weather"


def test_completions_and_embeddings_are_answered(sdk: Any) -> None:
    text = sdk.completions.create(model=MODEL, prompt="One, two,", **EXACT)
    # Without a format the package asks for base64, and decodes it.
    vectors = sdk.embeddings.create(model=MODEL, input=["a cat", "a dog"])
    floats = sdk.embeddings.create(model=MODEL, input="a cat", encoding_format="float")

    assert text.choices[0].text
    assert [len(each.embedding) for each in vectors.data] == [576, 576]
    assert vectors.data[0].embedding == pytest.approx(
        floats.data[0].embedding, rel=0.01
    )
    assert vectors.usage.prompt_tokens > 0


def test_refusals_are_the_exceptions_that_programs_catch(fleet: Fleet) -> None:
    with asking(fleet) as sdk, asking(fleet, api_key=WRONG) as stranger:
        with pytest.raises(openai.AuthenticationError):
            stranger.models.list()
        with pytest.raises(openai.AuthenticationError):
            stranger.chat.completions.create(model=MODEL, messages=ASK)
        with pytest.raises(openai.NotFoundError, match="nothing-like-it"):
            sdk.chat.completions.create(model="nothing-like-it", messages=ASK)
        with pytest.raises(openai.BadRequestError):
            sdk.chat.completions.create(model=MODEL, messages=[])
        text = [{"role": "user", "content": "word " * 9000}]
        with pytest.raises(openai.BadRequestError) as long:
            sdk.chat.completions.create(model=MODEL, messages=text)
        assert long.value.code == "context_length_exceeded"


def test_a_429_is_tried_again_when_it_says(fleet: Fleet) -> None:
    held: list[Any] = []
    seen: list[tuple[int, str | None]] = []

    def look(response: Any) -> None:
        seen.append((response.status_code, response.headers.get("retry-after")))
        if response.status_code == 429:
            held.pop().close()

    hooked = openai.DefaultHttpxClient(event_hooks={"response": [look]})
    with (
        asking(fleet, api_key=fleet.single) as first,
        asking(fleet, api_key=fleet.single, max_retries=3, http_client=hooked) as sdk,
    ):
        chat = first.chat.completions
        held.append(chat.create(model=MODEL, messages=ASK, stream=True))
        next(iter(held[0]))
        with pytest.raises(openai.RateLimitError) as limited:
            chat.create(model=MODEL, messages=ASK)
        assert int(limited.value.response.headers["retry-after"]) >= 1
        answer = sdk.chat.completions.create(model=MODEL, messages=ASK, **EXACT)

    assert answer.choices[0].message.content
    assert [status for status, _ in seen][:2] == [429, 200]


def test_a_closed_stream_and_a_timeout_free_the_slot(sdk: Any) -> None:
    chat = sdk.chat.completions
    for _ in range(3):  # more than there are slots
        with chat.create(model=MODEL, messages=ASK, stream=True) as stream:
            next(iter(stream))
        with pytest.raises(openai.APITimeoutError):
            sdk.with_options(timeout=0.05).chat.completions.create(
                model=MODEL, messages=ASK, max_tokens=2000
            )

    assert chat.create(model=MODEL, messages=ASK, max_tokens=2).choices


async def both(fleet: Fleet) -> list[Any]:
    async with openai.AsyncOpenAI(base_url=fleet.v1, api_key=fleet.key) as sdk:
        stream = await sdk.chat.completions.create(
            model=MODEL, messages=ASK, stream=True, **EXACT
        )
        return [each async for each in stream]


def test_the_asynchronous_client_streams(fleet: Fleet) -> None:
    import asyncio

    assert asyncio.run(both(fleet))[-1].choices[0].finish_reason == "length"
