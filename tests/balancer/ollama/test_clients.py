"""Ollama's own Python client against a balancer: only the address is another one."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import ollama
import pytest

from tests.balancer.broken_streams import DONE, sse
from tests.balancer.endpoint import Endpoint, endpoint
from tests.fakes.llama import Behaviour
from tests.fakes.node import FakeNode, fake_node
from tests.fakes.reports import an_engine

PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 20).decode()
HI = [{"role": "user", "content": "hi"}]


@asynccontextmanager
async def asking(
    balancer: Endpoint, **changes: Any
) -> AsyncGenerator[ollama.AsyncClient]:
    """Hold a client of this balancer."""
    async with ollama.AsyncClient(balancer.balancer.origin.url, **changes) as client:
        yield client


@asynccontextmanager
async def client_of(*nodes: FakeNode) -> AsyncGenerator[ollama.AsyncClient]:
    async with endpoint(*nodes) as balancer, asking(balancer) as client:
        yield client


async def parts(stream: Any) -> list[Any]:
    return [each async for each in cast("AsyncIterator[Any]", stream)]


async def test_a_chat_is_answered_whole() -> None:
    async with fake_node() as node, client_of(node) as client:
        answer = await client.chat("small:latest", HI, options={"num_predict": 4})

    assert (answer.model, answer.message.role) == ("small:latest", "assistant")
    assert answer.message.content == "w0 w1 w2 w3"
    assert (answer.done, answer.done_reason) == (True, "length")
    assert answer.eval_count == 4
    assert min(answer.total_duration or 0, answer.eval_duration or 0) > 0
    assert node.llama.requests[0].body["max_tokens"] == 4


async def test_a_chat_is_streamed_in_lines_with_counts_in_the_last() -> None:
    async with fake_node() as node, client_of(node) as client:
        lines = await parts(await client.chat("small", HI, stream=True))

    *texts, last = lines
    said = "".join(each.message.content for each in texts)
    assert said == " ".join(f"w{n}" for n in range(16))
    assert {each.done for each in texts} == {False}
    assert (last.done, last.message.content, last.eval_count) == (True, "", 16)
    assert last.prompt_eval_count > 0
    assert len(texts) > 10


async def test_a_call_of_a_tool_reaches_the_client_with_its_arguments() -> None:
    function = {"name": "sum", "arguments": '{"a": 1}'}
    call = {"index": 0, "id": "c", "type": "function", "function": function}
    called = {"delta": {"tool_calls": [call]}, "index": 0, "finish_reason": None}
    end = {"delta": {}, "index": 0, "finish_reason": "tool_calls"}
    stream = sse({"choices": [called]}) + sse({"choices": [end]}) + DONE
    tool = {"type": "function", "function": {"name": "sum", "parameters": {}}}
    async with fake_node() as node, client_of(node) as client:
        node.script = [(stream, "whole")]
        lines = await parts(await client.chat("small", HI, tools=[tool], stream=True))

    (made,) = lines[0].message.tool_calls
    assert (made.function.name, made.function.arguments) == ("sum", {"a": 1})
    assert (lines[-1].done, lines[-1].done_reason) == (True, "stop")


async def test_text_is_generated_from_a_prompt() -> None:
    async with fake_node() as node, client_of(node) as client:
        whole = await client.generate("small", "hi", system="Be short.")
        raw = await client.generate("small", "hi", raw=True, options={"num_predict": 2})
        streamed = await parts(await client.generate("small", "hi", stream=True))
        filled = await client.generate("small", "def", suffix="end")

    assert whole.response == " ".join(f"w{n}" for n in range(16))
    assert (raw.response, raw.done_reason) == ("w0 w1", "length")
    assert "".join(each.response for each in streamed) == whole.response
    assert filled.response
    messages = node.llama.requests[0].body["messages"]
    assert [each["role"] for each in messages] == ["system", "user"]
    assert [each.path for each in node.llama.requests] == [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/chat/completions",
        "/infill",
    ]


async def test_embeddings_are_made_in_both_forms() -> None:
    engine = an_engine("bge:F16", abilities=("embeddings",))
    async with (
        fake_node(behaviour=Behaviour(embeddings=True), engine=engine) as node,
        client_of(node) as client,
    ):
        new = await client.embed("bge", ["one", "two"])
        short = await client.embed("bge", "one", dimensions=2)
        old = await client.embeddings("bge", "one")

    assert len(new.embeddings) == 2
    assert len(short.embeddings[0]) == 2
    assert sum(each * each for each in short.embeddings[0]) == pytest.approx(1)
    assert list(old.embedding) == list(new.embeddings[0])


async def test_models_are_listed_with_a_tag_and_shown() -> None:
    async with fake_node() as node, client_of(node) as client:
        listed = await client.list()
        running = await client.ps()
        shown = await client.show("small:latest")

    assert [each.model for each in listed.models] == ["small:latest"]
    assert [each.model for each in running.models] == ["small:latest"]
    details = listed.models[0].details
    assert details is not None
    assert details.quantization_level == "Q4_1"
    assert "completion" in (shown.capabilities or [])
    assert shown.modelinfo is not None
    assert shown.modelinfo["small.context_length"] > 0


async def test_an_unknown_model_is_a_404_with_a_sentence() -> None:
    async with fake_node() as node, client_of(node) as client:
        with pytest.raises(ollama.ResponseError, match="huge") as chat:
            await client.chat("huge:latest", HI)
        with pytest.raises(ollama.ResponseError, match="huge") as stream:
            await parts(await client.chat("huge:latest", HI, stream=True))
        with pytest.raises(ollama.ResponseError, match="huge") as show:
            await client.show("huge")

    assert {each.value.status_code for each in (chat, stream, show)} == {404}


async def test_images_are_refused_where_no_model_sees() -> None:
    seen = [{"role": "user", "content": "what is it?", "images": [PIXEL]}]
    async with fake_node() as node, client_of(node) as client:
        with pytest.raises(ollama.ResponseError, match="look at images") as refused:
            await client.chat("small", seen)

    assert refused.value.status_code in {400, 404}


async def test_an_empty_request_only_loads_the_model() -> None:
    async with fake_node() as node, client_of(node) as client:
        loaded = await client.chat("small", [])
        answer = await client.generate("small", keep_alive="5m")
        with pytest.raises(ollama.ResponseError) as unknown:
            await client.generate("huge")

    assert (loaded.done, loaded.done_reason) == (True, "load")
    assert (answer.done, answer.done_reason) == (True, "load")
    assert unknown.value.status_code == 404
    assert not any("chat" in each.path for each in node.llama.requests)
