"""Anthropic's Python package, against `/v1/messages`."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from tests.clients.conftest import (
    ASK,
    CITY,
    LIMIT_SECONDS,
    MODEL,
    WRONG,
    Fleet,
    client,
)

anthropic = client("anthropic")

EXACT = {"max_tokens": 12, "extra_body": {"temperature": 0}}
TOOL = {"name": "weather", "description": "Tells the weather.", "input_schema": CITY}


def asking(fleet: Fleet, **options: Any) -> Any:
    chosen = {"api_key": fleet.key, "max_retries": 0, "timeout": LIMIT_SECONDS}
    return anthropic.Anthropic(base_url=fleet.url, **chosen | options)


@pytest.fixture
def sdk(fleet: Fleet) -> Generator[Any]:
    with asking(fleet) as found:
        yield found


def test_models_are_listed(sdk: Any) -> None:
    assert MODEL in {each.id for each in sdk.models.list()}
    assert sdk.models.retrieve(MODEL).id == MODEL


def test_a_stream_says_the_same_and_counts_the_same(sdk: Any) -> None:
    whole = sdk.messages.create(model=MODEL, messages=ASK, system="Be kind.", **EXACT)
    with sdk.messages.stream(
        model=MODEL, messages=ASK, system="Be kind.", **EXACT
    ) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()

    assert whole.content[0].text == text == final.content[0].text
    assert whole.stop_reason == final.stop_reason
    assert 0 < whole.usage.output_tokens == final.usage.output_tokens
    assert final.usage.input_tokens > 0


def test_a_tool_is_called_at_once_and_in_a_stream(sdk: Any) -> None:
    asked = {"model": MODEL, "messages": ASK, "tools": [TOOL], "max_tokens": 60}
    must = {"tool_choice": {"type": "any"}}
    answer = sdk.messages.create(**asked, **must)
    with sdk.messages.stream(
        **asked, tool_choice={"type": "tool", "name": "weather"}
    ) as s:
        final = s.get_final_message()

    for each in (answer, final):
        assert (_call(each).name, each.stop_reason) == ("weather", "tool_use")
        assert _call(each).input["city"] in {"Paris", "Rome"}
    call = _call(final)
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
    told = [
        *ASK,
        {"role": "assistant", "content": final.content},
        {"role": "user", "content": [result]},
    ]
    after = sdk.messages.create(model=MODEL, messages=told, tools=[TOOL], **EXACT)
    assert after.content


def _call(answer: Any) -> Any:
    (found,) = [part for part in answer.content if part.type == "tool_use"]
    return found


def test_tokens_are_counted(sdk: Any) -> None:
    counted = sdk.messages.count_tokens(model=MODEL, messages=ASK)
    whole = sdk.messages.create(model=MODEL, messages=ASK, **EXACT)

    used = whole.usage
    read = used.input_tokens + used.cache_read_input_tokens
    assert counted.input_tokens == read


def test_refusals_are_the_exceptions_that_programs_catch(fleet: Fleet) -> None:
    with asking(fleet) as sdk, asking(fleet, api_key=WRONG) as stranger:
        with pytest.raises(anthropic.AuthenticationError) as refused:
            stranger.messages.create(model=MODEL, messages=ASK, **EXACT)
        with pytest.raises(anthropic.NotFoundError, match="nothing-like-it"):
            sdk.messages.create(model="nothing-like-it", messages=ASK, **EXACT)
        with pytest.raises(anthropic.BadRequestError):
            sdk.messages.create(model=MODEL, messages=[], **EXACT)

    assert refused.value.body["error"]["type"] == "authentication_error"


def test_a_429_is_an_exception_that_says_when_to_come_back(fleet: Fleet) -> None:
    with asking(fleet, api_key=fleet.single) as sdk:
        asked = {"model": MODEL, "messages": ASK, "max_tokens": 400}
        with sdk.messages.stream(**asked) as stream:
            next(iter(stream))
            with pytest.raises(anthropic.RateLimitError) as limited:
                sdk.messages.create(**asked)

        assert int(limited.value.response.headers["retry-after"]) >= 1
        again = sdk.with_options(max_retries=5).messages.create(
            model=MODEL, messages=ASK, **EXACT
        )
    assert again.content[0].text


def test_a_bearer_token_is_as_good_as_an_api_key(fleet: Fleet) -> None:
    with anthropic.Anthropic(base_url=fleet.url, auth_token=fleet.key) as sdk:
        assert sdk.messages.create(model=MODEL, messages=ASK, **EXACT).content
