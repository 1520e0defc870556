"""What Ollama's own Python client sees, on a real engine."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

import ollama
import pytest

from tests.endpoint.conftest import MODEL, Endpoint

pytestmark = pytest.mark.engine
NAME = f"{MODEL}:latest"
ASK = [{"role": "user", "content": "Say hello."}]
EXACT = {"temperature": 0, "num_predict": 12}


@pytest.fixture
def client(endpoint: Endpoint) -> Generator[ollama.Client]:
    with ollama.Client(endpoint.url) as found:
        yield found


def test_a_streamed_chat_says_the_same_as_one_that_waits(client: ollama.Client) -> None:
    whole = client.chat(NAME, ASK, options=EXACT)
    lines = list(client.chat(NAME, ASK, options=EXACT, stream=True))

    assert whole.message.content
    assert (
        "".join(each.message.content or "" for each in lines) == whole.message.content
    )
    assert (lines[-1].done, lines[-1].done_reason) == (True, "length")
    for counted in (whole, lines[-1]):
        assert counted.eval_count == 12
        assert (counted.prompt_eval_count or 0) > 5
        spent = (counted.prompt_eval_duration or 0) + (counted.eval_duration or 0)
        assert 0 < spent <= (counted.total_duration or 0)


def test_a_prompt_is_answered_or_continued_as_it_is(client: ollama.Client) -> None:
    answered = client.generate(NAME, "Say hello.", options=EXACT)
    raw = client.generate(NAME, "The capital of France is", raw=True, options=EXACT)
    pieces = client.generate(NAME, "Say hello.", options=EXACT, stream=True)

    assert answered.response == client.chat(NAME, ASK, options=EXACT).message.content
    assert "Paris" in (raw.response or "")
    assert "".join(each.response or "" for each in pieces) == answered.response


def test_an_answer_has_the_form_of_its_schema(client: ollama.Client) -> None:
    properties = {"name": {"type": "string", "maxLength": 9}, "age": {"enum": [1, 2]}}
    schema: dict[str, Any] = {
        "type": "object",
        "properties": properties,
        "required": ["name", "age"],
    }
    options = {"temperature": 0, "num_predict": 60}
    answer = client.chat(NAME, ASK, format=schema, options=options)
    free = client.generate(NAME, "a person", format="json", options=options)

    assert json.loads(answer.message.content or "")["age"] in {1, 2}
    assert (free.response or "").lstrip().startswith("{")


def test_tools_can_be_offered_and_their_results_told(client: ollama.Client) -> None:
    function = {"name": "now", "description": "the time", "parameters": {}}
    calls = [{"function": {"name": "now", "arguments": {"zone": "UTC"}}}]
    told: list[Any] = [
        *ASK,
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "tool_name": "now", "content": "noon"},
    ]
    tools = [{"type": "function", "function": function}]
    answer = client.chat(NAME, told, tools=tools, options=EXACT)

    assert answer.done
    assert answer.message.content or answer.message.tool_calls


def test_models_are_listed_by_name_and_variant(client: ollama.Client) -> None:
    names = {each.model for each in client.list().models}
    loaded = {each.model for each in client.ps().models}
    shown = client.show(NAME)

    assert names == {NAME, f"{MODEL}:Q4_1", f"{MODEL}:Q8_0"}
    assert loaded == {f"{MODEL}:Q4_1", f"{MODEL}:Q8_0"}
    assert shown.details is not None
    assert shown.details.parameter_size == "135M"
    assert shown.capabilities is not None
    assert "completion" in shown.capabilities


def test_images_are_refused_with_a_sentence(client: ollama.Client) -> None:
    seen = [{"role": "user", "content": "what?", "images": ["iVBORw0KGgoAAAA="]}]
    with pytest.raises(ollama.ResponseError, match="cannot look at images"):
        client.chat(NAME, seen)


@pytest.mark.parametrize("think", [True, False, "high"])
def test_thinking_can_be_asked_for_or_not(client: ollama.Client, think: Any) -> None:
    answer = client.chat(NAME, ASK, think=think, options=EXACT)

    assert answer.message.content


def test_what_a_model_cannot_fill_in_is_refused(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError) as refused:
        client.generate(NAME, "def f(", suffix="return 1")

    assert refused.value.status_code >= 400
    assert "infill" in refused.value.error.lower()


def test_log_probabilities_come_with_each_token(client: ollama.Client) -> None:
    answer = client.chat(NAME, ASK, logprobs=True, top_logprobs=2, options=EXACT)

    assert answer.logprobs is not None
    assert len(answer.logprobs) == 12
    assert len(answer.logprobs[0].top_logprobs or ()) == 2


def test_a_name_of_ollamas_library_finds_the_model(client: ollama.Client) -> None:
    library = "smollm2:135m"
    answer = client.chat(library, ASK, options=EXACT)

    assert answer.model == library
    assert client.show(library).details == client.show(NAME).details
