"""What OpenAI's own client sees, on a real engine."""

from __future__ import annotations

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.endpoint.conftest import MODEL, Endpoint

pytestmark = pytest.mark.engine
ASK: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello."}]


def test_a_chat_is_answered_with_usage_and_a_finish_reason(endpoint: Endpoint) -> None:
    answer = endpoint.client.chat.completions.create(
        model=MODEL, messages=ASK, max_tokens=8, temperature=0
    )

    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8
    assert answer.model.startswith(f"{MODEL}:")


def test_a_streamed_chat_says_the_same_as_one_that_waits(endpoint: Endpoint) -> None:
    chat = endpoint.client.chat.completions
    model = f"{MODEL}:Q4_1"

    whole = chat.create(model=model, messages=ASK, max_tokens=12, temperature=0)
    pieces = list(
        chat.create(
            model=model, messages=ASK, max_tokens=12, temperature=0, stream=True
        )
    )

    text = "".join(p.choices[0].delta.content or "" for p in pieces if p.choices)
    assert text == whole.choices[0].message.content
    assert pieces[0].choices[0].delta.role == "assistant"


def test_a_completion_continues_its_prompt(endpoint: Endpoint) -> None:
    answer = endpoint.client.completions.create(
        model=MODEL, prompt="The capital of France is", max_tokens=3, temperature=0
    )

    assert "Paris" in answer.choices[0].text


def test_models_lists_a_model_once_with_both_variants(endpoint: Endpoint) -> None:
    (model,) = endpoint.client.models.list()
    extra = model.model_extra or {}

    assert (model.id, extra["state"]) == (MODEL, "loaded")
    names = [each["name"] for each in extra["variants"]]
    assert names == [f"{MODEL}:Q4_1", f"{MODEL}:Q8_0"]


@pytest.mark.parametrize("label", ["Q4_1", "Q8_0"])
def test_a_named_variant_is_the_one_that_answers(
    endpoint: Endpoint, label: str
) -> None:
    raw = endpoint.client.chat.completions.with_raw_response.create(
        model=f"{MODEL}:{label}", messages=ASK, max_tokens=2
    )

    assert raw.headers["x-edgeserve-model"] == f"{MODEL}:{label}"
    assert raw.parse().model == f"{MODEL}:{label}"


def test_embeddings_come_from_the_engine_started_for_them(endpoint: Endpoint) -> None:
    answer = endpoint.client.embeddings.create(
        model=MODEL, input=["a cat", "a dog"], encoding_format="float"
    )

    assert [len(each.embedding) for each in answer.data] == [576, 576]


def test_an_unknown_model_is_a_404_that_lists_what_exists(endpoint: Endpoint) -> None:
    with pytest.raises(openai.NotFoundError, match=f"{MODEL}:Q4_1"):
        endpoint.client.chat.completions.create(model="huge", messages=ASK)


def test_a_prompt_past_the_context_is_llama_cpps_own_400(endpoint: Endpoint) -> None:
    with pytest.raises(openai.BadRequestError, match="context"):
        endpoint.client.completions.create(model=MODEL, prompt="word " * 3000)


def test_every_answer_names_its_node(endpoint: Endpoint) -> None:
    raw = endpoint.client.completions.with_raw_response.create(
        model=MODEL, prompt="One", max_tokens=1
    )

    assert raw.headers["x-edgeserve-node"]
    assert raw.headers["x-edgeserve-request-id"]
    assert raw.headers["x-edgeserve-attempts"] == "1"
