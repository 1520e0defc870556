"""Every kind of server answers as the fleet promises, whatever its dialect is."""

from __future__ import annotations

from typing import Any

import pytest

from tests.balancer.endpoint import CHAT, chat, endpoint
from tests.balancer.servers.reading import events, text
from tests.fakes.dialects.base import (
    CALL,
    COMPLETION,
    EMBEDDINGS,
    LLAMA_FIELDS,
    SAID,
    THOUGHT,
    USAGE,
    Dialect,
)
from tests.fakes.dialects.running import DIALECTS, fake_dialect

every = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda each: each.name)
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}
COUNTED = {"include_usage": True}


def asks(dialect: Dialect, **fields: Any) -> dict[str, Any]:
    """Build a chat for the model of a server."""
    return chat(model=dialect.model, **fields)


@every
async def test_what_it_tells_is_read_and_its_models_are_listed(
    dialect: Dialect,
) -> None:
    async with (
        fake_dialect(dialect) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        (node,) = here.balancer.state.current.fleet.nodes
        found = {each.id: each for each in node.report.engines}
        listed = (await here.get("/v1/models")).json["data"]

    engine = found[dialect.model]
    assert engine.build == dialect.kind
    assert (engine.slots, engine.busy) == (dialect.width, dialect.busy)
    assert engine.context == dialect.context
    assert found.keys() == {dialect.model, dialect.embedder} - {""}
    assert len(listed) == len(found)
    assert "/metrics" not in server.looked or dialect.kind != "tensorrt-llm"


@every
async def test_a_whole_chat_has_its_text_its_reasoning_and_its_tokens(
    dialect: Dialect,
) -> None:
    async with (
        fake_dialect(dialect) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        fields = dict.fromkeys(LLAMA_FIELDS - {"n_predict"}, 1)
        answered = await here.post(CHAT, asks(dialect, **fields))
        short = await here.post(CHAT, asks(dialect, max_tokens=1))

    for each in (answered, short):
        assert each.status == 200
        assert each.text == SAID
        said = each.json["choices"][0]["message"]
        assert said.get("reasoning_content") == (THOUGHT if dialect.reasoning else None)
        assert each.json["choices"][0]["finish_reason"] == "stop"
    if dialect.usage != "never":
        assert answered.json["usage"]["completion_tokens"] == 3
        assert answered.json["usage"]["prompt_tokens"] == 9
    if dialect.kind != "llama-server":  # that one knows them
        assert not any(each.json.keys() & LLAMA_FIELDS for each in server.asked)


@every
async def test_a_stream_has_its_text_and_ends_as_clients_expect(
    dialect: Dialect,
) -> None:
    async with (
        fake_dialect(dialect) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        plain = await here.post(CHAT, asks(dialect, stream=True))
        counted = await here.post(
            CHAT, asks(dialect, stream=True, stream_options=COUNTED)
        )
        usage = [each for each in events(counted.body) if each != "[DONE]"][-1]

    thought = [
        choice["delta"].get("reasoning_content")
        for event in events(plain.body)[:-1]
        for choice in event["choices"]
    ]
    assert text(plain.body) == text(counted.body) == SAID
    assert events(plain.body)[-1] == events(counted.body)[-1] == "[DONE]"
    assert [each for each in thought if each] == [THOUGHT] * bool(dialect.reasoning)
    assert dialect.usage != "asked" or b'"usage"' not in plain.body
    assert dialect.usage == "never" or usage["usage"] == USAGE


@every
async def test_a_tool_is_called_in_a_stream_and_in_a_whole_answer(
    dialect: Dialect,
) -> None:
    if not dialect.calls_tools:
        pytest.skip("has no tools")
    async with (
        fake_dialect(dialect) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        whole = await here.post(CHAT, asks(dialect, tools=[TOOL]))
        short = await here.post(CHAT, asks(dialect, tools=[TOOL], max_tokens=1))
        streamed = await here.post(CHAT, asks(dialect, tools=[TOOL], stream=True))

    for each in (whole, short):
        (call,) = each.json["choices"][0]["message"]["tool_calls"]
        assert call["function"] == CALL
        assert each.json["choices"][0]["finish_reason"] == "tool_calls"
    parts = [
        call["function"]
        for event in events(streamed.body)[:-1]
        for choice in event["choices"]
        for call in choice["delta"].get("tool_calls") or ()
    ]
    assert "".join(each["arguments"] for each in parts) == CALL["arguments"]
    assert [each["name"] for each in parts if "name" in each] == [CALL["name"]]


@every
async def test_text_is_completed_or_refused_with_a_sentence(dialect: Dialect) -> None:
    async with (
        fake_dialect(dialect) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        body = {"model": dialect.model, "prompt": "a"}
        whole = await here.post(COMPLETION, body)
        streamed = await here.post(COMPLETION, {**body, "stream": True})

    if not dialect.completes:
        assert whole.status >= 400
        assert whole.error
        return
    said = [each["choices"][0]["text"] for each in events(streamed.body)[:-1]]
    assert whole.json["choices"][0]["text"] == "".join(said) == SAID


@every
async def test_texts_are_embedded_where_it_has_a_model_for_them(
    dialect: Dialect,
) -> None:
    model = dialect.embedder or dialect.model
    async with (
        fake_dialect(dialect) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        answered = await here.post(EMBEDDINGS, {"model": model, "input": "a"})

    if dialect.embedder:
        assert answered.json["data"][0]["embedding"] == [0.5, 0.25]
    else:
        assert answered.status == 400
        assert "does not do embeddings" in answered.error
        assert not server.asked
