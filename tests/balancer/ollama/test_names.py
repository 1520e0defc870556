"""Names of Ollama's library find the models of a fleet, and only those meant."""

from __future__ import annotations

from typing import Any

import pytest

from balancer.ollama.listing import details, loaded, tags
from balancer.ollama.names import resolved
from tests.balancer.building import a_candidate
from tests.fakes.reports import an_engine

FLEET = [
    a_candidate(engine=an_engine(each))
    for each in (
        "llama-3.2-1b-instruct:Q4_K_M",
        "llama-3.2-1b-instruct:Q8_0",
        "llama-3.2-3b-instruct:Q4_K_M",
        "gemma-3-4b-it:Q4_0",
        "qwen3-8b:Q4_K_M",
        "qwen3-8b-instruct:Q4_K_M",
        "coder-1b-chat:F16",
        "coder-1b-instruct:F16",
    )
]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("llama3.2:1b", "llama-3.2-1b-instruct"),
        ("llama3.2:1b-instruct-q8_0", "llama-3.2-1b-instruct:Q8_0"),
        ("hf.co/org/Llama-3.2-3B-Instruct-GGUF:Q4_K_M", "llama-3.2-3b-instruct:Q4_K_M"),
        ("gemma3:4b", "gemma-3-4b-it"),
        ("qwen3:8b", "qwen3-8b"),
        ("qwen3:8b-fp16", "qwen3:8b-fp16"),
        ("llama3.2:latest", "llama3.2:latest"),
        ("llama3.2:70b", "llama3.2:70b"),
        ("llama3.2:1b-text", "llama3.2:1b-text"),
        ("coder:1b", "coder:1b"),
        ("qwen3-8b:q4_k_m", "qwen3-8b:q4_k_m"),
    ],
)
def test_a_name_of_the_library_means_one_model_or_stays(name: str, meant: str) -> None:
    assert resolved(name, FLEET, ()) == meant


def test_a_name_that_a_route_has_stays() -> None:
    assert resolved("llama3.2:1b", FLEET, {"llama3.2:1B"}) == "llama3.2:1b"


def test_a_name_tells_family_size_and_label() -> None:
    told = details("llama-3.2-1b-instruct:Q4_K_M")

    assert (told["family"], told["parameter_size"]) == ("llama", "1B")
    assert told["quantization_level"] == "Q4_K_M"
    assert details("bge")["parameter_size"] == ""


def test_a_variant_is_listed_where_its_model_has_several() -> None:
    known: dict[str, dict[str, Any]] = {
        "a": {"variants": [{"name": "a:F16"}]},
        "a:F16": {"variant_of": "a"},
        "b": {"variants": [{"name": "b:F16"}, {"name": "b:Q8_0"}]},
        "b:F16": {"variant_of": "b"},
        "only:F16": {"variant_of": "only"},
        "route": {},
    }
    names = [each["name"] for each in tags(known)]

    assert names == ["a:latest", "b:latest", "b:F16", "only:F16", "route:latest"]


def test_a_digest_changes_with_what_clients_keep_by_it() -> None:
    known = {each.listed[0]: {"created": 1, "abilities": ["chat"]} for each in FLEET}
    able = {name: {**each, "abilities": ["tools"]} for name, each in known.items()}
    newer = {name: {**each, "created": 2} for name, each in known.items()}
    before, taught, replaced = (
        {each["name"]: each["digest"] for each in tags(told)}
        for told in (known, able, newer)
    )

    for name, digest in before.items():
        assert len({digest, taught[name], replaced[name]}) == 3
    running = loaded(FLEET[2:3], known)
    assert running
    assert all(each["digest"] == before[each["name"]] for each in running)


def test_what_is_loaded_is_listed_once_and_only_what_a_key_may_see() -> None:
    twice = [*FLEET[:1], a_candidate("nuc", FLEET[0].engine), *FLEET[2:3]]
    known: dict[str, Any] = {each.listed[0]: {"created": 1} for each in twice}
    few = {"llama-3.2-3b-instruct": known["llama-3.2-3b-instruct"]}
    all_ = [each["name"] for each in loaded(twice, known)]
    seen = [each["name"] for each in loaded(twice, few)]

    assert all_ == ["llama-3.2-1b-instruct:latest", "llama-3.2-3b-instruct:latest"]
    assert seen == all_[1:]
