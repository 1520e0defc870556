"""Servers are recognised by fields of their answers; others get a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from balancer.servers.report import Look, report_of
from edgeserve.config.servers import ServerSetting
from edgeserve.errors import NodeLost
from edgeserve.openai import normal
from edgeserve.served import Served
from edgeserve.servers.profiles.base import Reply
from edgeserve.servers.recognition import look, recognise
from edgeserve.wire import NodeReport
from tests.balancer.building import a_candidate
from tests.fakes.servers import (
    LLAMA_SERVER,
    OLLAMA,
    OPENAI,
    SGLANG,
    TGI,
    VLLM,
    listed,
)

URL = "http://gpu:8000"
JSON = {"content-type": "application/json"}


def setting(**fields: Any) -> ServerSetting:
    return ServerSetting(url=URL, **fields)


async def reported(answers: Mapping[str, Any], **fields: Any) -> NodeReport:
    """Recognise a server that answers so, and report it."""
    known = setting(**fields)

    async def get(path: str) -> Reply:
        found = answers.get(path, (404, b"Not Found"))
        status, body = found if isinstance(found, tuple) else (200, found)
        if isinstance(body, bytes):
            return Reply(status, {"content-type": "text/plain"}, body)
        return Reply(status, JSON, msgspec.json.encode(body))

    found = await recognise(get, known, "")
    replies = await look(get, found, "")
    if problem := found.profile.problem(replies):
        raise NodeLost(problem)
    return report_of(Look(setting=known, profile=found.profile, replies=replies))


@pytest.mark.parametrize(
    ("answers", "kind", "slots", "busy", "context"),
    [
        (VLLM, "vllm", 64, 3, 2048),
        (LLAMA_SERVER, "llama-server", 3, 1, 1024),
        (OLLAMA, "ollama", 1, 0, 8192),
        (SGLANG, "sglang", 20, 3, 4096),
        (TGI, "tgi", 32, 4, 2048),
        (OPENAI, "openai", 8, 0, 0),
    ],
)
async def test_each_kind_is_recognised_and_tells_what_it_can(
    answers: Mapping[str, Any], kind: str, slots: int, busy: int, context: int
) -> None:
    report = await reported(answers)

    engine = report.engines[0]
    assert (engine.build, engine.slots, engine.busy) == (kind, slots, busy)
    assert engine.context == context
    assert engine.model.lower() == "small"
    assert engine.kind == "server"


IMITATIONS = {
    "llama-server that has Ollama's routes": (LLAMA_SERVER | OLLAMA, "llama-server"),
    "SGLang that has Ollama's routes": (OLLAMA | SGLANG, "sglang"),
    "/version alone": (OPENAI | {"/version": {"version": "1"}}, "openai"),
    "a text at / alone": (OPENAI | {"/": b"Ollama is running"}, "openai"),
    "200 to every path": (
        {
            path: {"error": "Unexpected endpoint"}
            for path in (LLAMA_SERVER | OLLAMA | TGI)
        }
        | OPENAI,
        "openai",
    ),
    "damaged fields": (OPENAI | {"/props": {"build_info": 1}, "/info": {}}, "openai"),
}


@pytest.mark.parametrize("name", IMITATIONS)
async def test_imitations_do_not_mislead(name: str) -> None:
    answers, kind = IMITATIONS[name]

    assert (await reported(answers)).version == kind


PROBLEMS = {
    "empty": (b"", "200 with an empty body: it may lack a model"),
    "a page": (b"<html>", "no JSON object: is its URL right?"),
    "an error with 200": ({"error": "Unexpected endpoint"}, "Unexpected endpoint"),
    "an empty list": (listed(), "empty list of models: load one there"),
    "no list": ({"data": {"id": 1}}, "without a list of models in `data`"),
    "ids that are none": ({"data": [{"id": 7}, 3, {"id": ""}]}, "without a list"),
    "401": ((401, {"error": "Unauthorized"}), "`key_file` in a [[server]] table"),
    "404": ((404, {"detail": "Not Found"}), "name the URL below which"),
    "500": ((500, b"Internal Server Error"), "Internal Server Error): see its log"),
    "itself": (listed("small", owner="edgeserve"), "EdgeServe itself; name its nodes"),
}


@pytest.mark.parametrize("name", PROBLEMS)
async def test_an_answer_of_no_use_gets_one_sentence(name: str) -> None:
    answer, said = PROBLEMS[name]

    with pytest.raises(NodeLost) as refused:
        await reported({"/v1/models": answer})

    assert said in str(refused.value)
    assert URL in str(refused.value)


async def test_a_dead_engine_behind_a_list_of_models_is_noticed() -> None:
    with pytest.raises(NodeLost, match="/health answered 503"):
        await reported(VLLM | {"/health": (503, b"")})


async def test_lists_without_v1_are_found() -> None:
    report = await reported({"/models": listed("small")})

    assert [each.id for each in report.engines] == ["small"]


async def test_models_are_named_with_and_without_their_owner() -> None:
    report = await reported({"/v1/models": listed("a/x", "b/x", "c/Y", "z:latest")})

    assert [each.model for each in report.engines] == ["a/x", "b/x", "Y", "z"]
    assert [each.variant for each in report.engines] == [
        "a/x",
        "b/x",
        "c/Y",
        "z:latest",
    ]


async def test_embedding_models_get_no_chats_and_cloud_models_nothing() -> None:
    report = await reported(OLLAMA)

    assert {each.id: each.abilities for each in report.engines} == {
        "small:latest": ("chat", "completion", "tools"),
        "nomic-embed-text:v1.5": ("embeddings",),
    }


async def test_settings_count_more_than_what_was_read() -> None:
    report = await reported(
        {"/v1/models": listed("a", "b", owner="vllm")},
        kind="openai",
        width=3,
        context=99,
        models=("b",),
        name="gpu",
        last_resort=True,
    )

    (engine,) = report.engines
    assert (engine.id, engine.slots, engine.context) == ("b", 3, 99)
    assert (report.name, report.version, report.problems) == ("gpu", "openai", ())
    assert engine.last_resort


async def test_what_had_to_be_assumed_is_stated() -> None:
    width, context = (await reported(OPENAI)).problems

    assert "8 assumed until its answers show it (`width`)" in width
    assert context == "its context is unknown; it decides what is too long (`context`)"
    assert (await reported(SGLANG)).problems == ()


@pytest.mark.parametrize(
    ("tag", "asked"),
    [
        ("llama3.2:latest", ("llama3.2", "llama3.2:latest")),
        ("qwen3:8b", ("qwen3", "qwen3:8b", "qwen3:8B", "qwen3:latest")),
        (
            "llama3.2:3b-instruct-q4_K_M",
            ("llama3.2", "llama3.2:latest", "llama3.2:3b-instruct-q4_K_M"),
        ),
        ("hf.co/me/small-GGUF:Q4_K_M", ("small-gguf", "hf.co/me/small-GGUF:Q4_K_M")),
    ],
)
async def test_each_name_of_ollamas_finds_its_model(
    tag: str, asked: tuple[str, ...]
) -> None:
    report = await reported(OLLAMA | {"/v1/models": listed(tag)})

    candidate = a_candidate(engine=report.engines[0])
    assert all(candidate.serves(normal(each)) for each in asked)


async def test_two_sizes_of_one_model_are_not_taken_for_each_other() -> None:
    answers = OLLAMA | {"/v1/models": listed("qwen3:8b", "qwen3:32b")}

    report = await reported(answers)

    names = [a_candidate(engine=each) for each in report.engines]
    assert not any(each.serves("qwen3") for each in names)
    assert [each.serves(normal("qwen3:32b")) for each in names] == [False, True]


CACHE_INFO = b'vllm:cache_config_info{block_size="%d",%s num_gpu_blocks="48"} 1.0\n'


async def test_what_a_cache_is_like_is_read_where_it_is_told() -> None:
    def metrics(more: bytes) -> dict[str, Any]:
        return VLLM | {"/metrics": CACHE_INFO % (32, more)}

    (told,) = (await reported(metrics(b""))).engines
    (off,) = (await reported(metrics(b'enable_prefix_caching="False",'))).engines
    found = {
        kind: (await reported(answers)).engines[0].served
        for kind, answers in (("ollama", OLLAMA), ("sglang", SGLANG), ("any", OPENAI))
    }

    assert told.served == Served(cache="shared", block=32, most=48)
    assert told.slots == 48
    assert off.served is not None
    assert off.served.cache == "unknown"
    assert {kind: each.cache for kind, each in found.items() if each} == {
        "ollama": "slots",
        "sglang": "shared",
        "any": "unknown",
    }


ROUTER: dict[str, Any] = {
    "/props": {"role": "router", "max_instances": 4},
    "/health": {"status": "ok"},
    "/v1/models": {
        "data": [
            {"id": "one", "status": {"value": "loaded"}},
            {"id": "two", "status": {"value": "unloaded"}},
        ]
    },
    "/props?model=one&autoload=false": {
        "total_slots": 4,
        "default_generation_settings": {"n_ctx": 512},
    },
    "/slots?model=one&autoload=false": [{"is_processing": True}],
}


async def test_a_router_of_llama_cpp_tells_the_slots_of_each_loaded_model() -> None:
    one, two = (await reported(ROUTER)).engines

    assert (one.slots, one.busy, one.context) == (4, 1, 512)
    assert (two.slots, two.busy, two.context) == (1, 0, 0)
    assert [each.served and each.served.width for each in (one, two)] == [
        "told",
        "assumed",
    ]


async def test_llama_server_without_slots_tells_its_load_by_metrics() -> None:
    metrics = b"llamacpp:requests_processing 2\nllamacpp:requests_deferred 1\n"
    hidden = LLAMA_SERVER | {"/slots": (501, b"{}"), "/metrics": metrics}

    assert (await reported(hidden)).engines[0].busy == 3
