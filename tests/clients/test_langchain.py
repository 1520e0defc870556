"""LangChain: its packages for OpenAI's API and for Ollama's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.clients.conftest import (
    CITY,
    LIMIT_SECONDS,
    MODEL,
    QUESTION,
    TOOLS,
    WRONG,
    Fleet,
    client,
)

langchain_openai = client("langchain_openai")
langchain_ollama = client("langchain_ollama")
messages = client("langchain_core.messages")

KINDS = pytest.mark.parametrize("kind", ["openai", "ollama"])
PLACE = {"title": "place", "description": "A place.", **CITY}


def chat(fleet: Fleet, kind: str, most: int = 12, **options: Any) -> Any:
    if kind == "openai":
        chosen = {"model": MODEL, "api_key": fleet.key, "max_tokens": most} | options
        # Without it the package asks for no usage where the address is not OpenAI's.
        chosen["stream_usage"] = True
        return langchain_openai.ChatOpenAI(
            base_url=fleet.v1, temperature=0, timeout=LIMIT_SECONDS, **chosen
        )
    chosen = {"model": MODEL, "num_predict": most, **options}
    return langchain_ollama.ChatOllama(
        base_url=fleet.url, client_kwargs=_headers(fleet.key), temperature=0, **chosen
    )


def _headers(key: str) -> dict[str, Any]:
    return {"headers": {"Authorization": f"Bearer {key}"}}


@KINDS
def test_a_stream_says_the_same_as_a_whole_answer(fleet: Fleet, kind: str) -> None:
    model = chat(fleet, kind)
    whole = model.invoke(QUESTION)
    *pieces, last = model.stream(QUESTION)
    joined = sum(pieces, start=messages.AIMessageChunk("")) + last

    assert joined.content == whole.content
    assert whole.usage_metadata["output_tokens"] == 12
    assert joined.usage_metadata["output_tokens"] == 12


@KINDS
def test_a_bound_tool_is_called_and_its_result_is_taken(
    fleet: Fleet, kind: str
) -> None:
    model = chat(fleet, kind, most=60)
    answer = model.bind_tools(TOOLS).invoke(QUESTION)
    (call,) = answer.tool_calls
    told = [
        messages.HumanMessage(QUESTION),
        answer,
        messages.ToolMessage("rain", tool_call_id=call["id"]),
    ]

    assert call["name"] == "weather"
    assert call["args"]["city"] in {"Paris", "Rome"}
    assert model.bind_tools(TOOLS).invoke(told).content


@KINDS
def test_structured_output_has_the_form_of_its_schema(fleet: Fleet, kind: str) -> None:
    model = chat(fleet, kind, most=60)
    found = model.with_structured_output(PLACE, method="json_schema").invoke(QUESTION)

    assert found["city"] in {"Paris", "Rome"}, json.dumps(found)


def test_embeddings_are_answered(fleet: Fleet) -> None:
    # The package sends OpenAI's token ids, unless it is told that they are not known.
    for ids in (True, False):
        embed = langchain_openai.OpenAIEmbeddings(
            base_url=fleet.v1,
            api_key=fleet.key,
            model=MODEL,
            check_embedding_ctx_length=ids,
        )
        assert len(embed.embed_query("a cat")) == 576
    other = langchain_ollama.OllamaEmbeddings(
        base_url=fleet.url, client_kwargs=_headers(fleet.key), model=MODEL
    )
    assert len(other.embed_documents(["a cat", "a dog"])[1]) == 576


def test_refusals_are_the_exceptions_that_programs_catch(fleet: Fleet) -> None:
    openai, ollama = client("openai"), client("ollama")

    with pytest.raises(openai.AuthenticationError):
        chat(fleet, "openai", api_key=WRONG).invoke(QUESTION)
    with pytest.raises(openai.NotFoundError):
        chat(fleet, "openai", model="nothing-like-it").invoke(QUESTION)
    with pytest.raises(ollama.ResponseError, match="nothing-like-it"):
        chat(fleet, "ollama", model="nothing-like-it").invoke(QUESTION)
    # It looks whether the model is there before it is used.
    assert chat(fleet, "ollama", validate_model_on_init=True)
