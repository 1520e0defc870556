"""llama.cpp's own routes: translated for the servers that can, refused for others."""

from __future__ import annotations

from typing import Any

import pytest

from tests.balancer.endpoint import CHAT, chat, endpoint
from tests.fakes.servers import (
    LLAMA_SERVER,
    OLLAMA,
    OPENAI,
    SGLANG,
    TGI,
    VLLM,
    fake_server,
)

SPECIAL = {"add_special_tokens": True}


@pytest.mark.parametrize(
    ("answers", "answer", "asked"),
    [
        pytest.param(
            VLLM,
            {"count": 2, "max_model_len": 9, "tokens": [5, 6], "token_strs": None},
            {"model": "Qwen/Small", "prompt": "hi you", **SPECIAL},
            id="vllm",
        ),
        pytest.param(
            SGLANG,
            {"tokens": [5, 6], "count": 2},
            {"model": "org/small", "prompt": "hi you", **SPECIAL},
            id="sglang",
        ),
        pytest.param(
            TGI,
            [{"id": 5, "text": "hi", "start": 0, "stop": 2}, {"id": 6, "text": " you"}],
            {"inputs": "hi you", **SPECIAL},
            id="tgi",
        ),
    ],
)
async def test_a_text_is_tokenized_as_llama_cpp_would_say_it(
    answers: Any, answer: Any, asked: Any
) -> None:
    async with (
        fake_server(answers, posts={"/tokenize": answer}) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        body = {"model": "small", "content": "hi you", "add_special": True}
        answered = await here.post("/tokenize", body)
        pieces = await here.post("/tokenize", {**body, "with_pieces": True})

    assert answered.json == {"tokens": [5, 6]}
    assert server.asked[0][2] == asked
    assert pieces.status == 400
    assert "with_pieces" in pieces.error


@pytest.mark.parametrize(("answers", "name"), [(VLLM, "prompt"), (SGLANG, "text")])
async def test_tokens_become_a_text_again(answers: Any, name: str) -> None:
    async with (
        fake_server(answers, posts={"/detokenize": {name: "hi you"}}) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        body = {"model": "small", "tokens": [5, 6]}
        answered = await here.post("/detokenize", body)

    assert answered.json == {"content": "hi you"}
    assert server.asked[0][2]["tokens"] == [5, 6]


async def test_an_answer_that_is_no_list_of_tokens_is_none() -> None:
    async with (
        fake_server(VLLM, posts={"/tokenize": {"count": 2}}) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        answered = await here.post("/tokenize", {"model": "small", "content": "hi"})

    assert answered.status == 502
    assert (
        f"/tokenize of {server.url} was answered with no such thing" in answered.error
    )


@pytest.mark.parametrize(
    ("answers", "path", "kind"),
    [
        (OLLAMA, "/tokenize", "ollama"),
        (OPENAI, "/apply-template", "openai"),
        (VLLM, "/infill", "vllm"),
        (TGI, "/detokenize", "tgi"),
    ],
)
async def test_what_a_server_cannot_do_is_refused_and_says_who_could(
    answers: Any, path: str, kind: str
) -> None:
    async with (
        fake_server(answers) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        refused = await here.post(path, {"model": "small", "content": "hi"})

    assert refused.status == 400
    assert f"served by {kind}" in refused.error
    assert "give a node a GGUF of the model" in refused.error
    assert not server.asked


async def test_a_llama_server_gets_every_route_and_field_as_it_is() -> None:
    answers = {**LLAMA_SERVER, "/slots": [{"id": 0, "is_processing": False}]}
    posts = {"/completion": {"content": "x", "stop": True}, "/tokenize": {"tokens": []}}
    async with (
        fake_server(answers, posts=posts) as server,
        endpoint(servers=(server.url,)) as here,
    ):
        native = await here.post(
            "/completion", {"model": "small", "prompt": "a", "n_predict": 2}
        )
        tokens = await here.post("/tokenize", {"model": "small", "content": "a"})
        slots = await here.get("/slots?model=small")
        grammar = await here.post(
            CHAT, chat(grammar='root ::= "a"', max_tokens=2, cache_prompt=False)
        )

    assert native.json["content"] == "x"
    assert tokens.json == {"tokens": []}
    assert slots.json == answers["/slots"]
    assert grammar.status == 200
    (path, _, first), *_, (_, _, last) = server.asked
    assert path == "/completion"
    assert first["n_predict"] == 2
    assert (last["grammar"], last["cache_prompt"]) == ('root ::= "a"', False)
    assert last["model"] == "/models/Small-Q4_K_M.gguf"
