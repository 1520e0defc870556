import dataclasses
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from edgeserve.runtime.threads import BLOCKTIME, SPIN
from node.engines.base import EngineSpec
from node.engines.flags import arguments, environment, parameters
from tests.fakes.engines import a_spec


def said(arguments_: Sequence[str], flag: str) -> str:
    """The value behind a flag that is said exactly once."""
    assert arguments_.count(flag) == 1
    return arguments_[arguments_.index(flag) + 1]


def with_launch(**changes: object) -> EngineSpec:
    spec = a_spec()
    launch = msgspec.structs.replace(spec.launch, **changes)
    return dataclasses.replace(spec, launch=launch)


def test_everything_we_depend_on_is_in_the_arguments() -> None:
    given = arguments(a_spec(), 9000)

    values = {
        "--host": "127.0.0.1",
        "--port": "9000",
        "--alias": "fake:Q4_1",
        "--parallel": "2",
        "--ctx-size": "4096",
        "--batch-size": "128",
        "--ubatch-size": "128",
        "--threads": "2",
        "--threads-batch": "2",
        "--cache-ram": "0",
        "--cache-type-k": "f16",
        "--cache-type-v": "f16",
        "--flash-attn": "auto",
        "--fit": "off",
    }
    assert {flag: said(given, flag) for flag in values} == values
    assert {"--no-kv-unified", "--metrics", "--no-ui", "--offline"} <= set(given)


def test_a_prompt_cache_is_as_large_as_was_fitted() -> None:
    spec = with_launch(cache_ram_mib=512)

    assert said(arguments(spec, 9000), "--cache-ram") == "512"
    assert parameters(spec, 9000, "key")["cache_ram_mib"] == 512
    assert parameters(spec, 9000, "key")["cache_idle_slots"] is True


def test_the_key_never_stands_in_the_arguments() -> None:
    assert not any("key" in argument for argument in arguments(a_spec(), 9000))


@pytest.mark.parametrize(
    ("layers", "flags"),
    [
        (0, ["--gpu-layers", "0", "--device", "none"]),
        (12, ["--gpu-layers", "12"]),
        (-1, ["--gpu-layers", "all"]),
    ],
)
def test_layers_on_the_gpu_are_in_the_arguments(layers: int, flags: list[str]) -> None:
    given = arguments(with_launch(gpu_layers=layers), 9000)

    start = given.index("--gpu-layers")
    assert list(given[start : start + len(flags)]) == flags
    assert ("--device" in given) == (layers == 0)


def test_a_split_over_gpus_is_in_the_arguments() -> None:
    spec = with_launch(
        gpu_layers=-1,
        tensor_split=(3.0, 1.0),
        devices=("CUDA0", "CUDA1"),
        overrides="exps=CPU",
    )
    given = arguments(spec, 9000)

    assert said(given, "--tensor-split") == "3,1"
    assert said(given, "--device") == "CUDA0,CUDA1"
    assert said(given, "--override-tensor") == "exps=CPU"
    assert parameters(spec, 1, "k")["tensor_split"] == [3.0, 1.0]


def test_roles_are_set_for_both_kinds() -> None:
    embed = a_spec(role="embeddings", pooling="mean")
    own = a_spec(role="embeddings")
    rank = a_spec(role="rerank")

    assert said(arguments(embed, 1), "--pooling") == "mean"
    assert "--pooling" not in arguments(own, 1)
    assert "--reranking" in arguments(rank, 1)
    assert "--embeddings" not in arguments(a_spec(), 1)
    assert [
        parameters(each, 1, "k").get("pooling_type") for each in (embed, own, rank)
    ] == [
        "LLAMA_POOLING_TYPE_MEAN",
        "LLAMA_POOLING_TYPE_UNSPECIFIED",
        "LLAMA_POOLING_TYPE_RANK",
    ]
    assert parameters(a_spec(), 1, "k")["embedding"] is False


def test_a_projector_is_passed_on() -> None:
    spec = a_spec(projector=Path("see.gguf"))

    assert said(arguments(spec, 1), "--mmproj") == "see.gguf"
    assert parameters(spec, 1, "k")["mmproj.path"] == "see.gguf"


def test_both_kinds_get_the_same_settings() -> None:
    given = parameters(a_spec(), 9000, "secret")

    assert given["n_ctx"] == 4096
    assert given["n_parallel"] == 2
    assert given["api_keys"] == ["secret"]
    assert given["hostnames"] == ["127.0.0.1"]
    assert given["model_alias"] == ["fake:Q4_1"]
    assert given["kv_unified"] is False
    assert given["endpoint_metrics"] is True


def test_speculation_and_ubatch_are_set_for_both_kinds() -> None:
    spec = with_launch(speculative="ngram-mod", ubatch=64)
    given = parameters(spec, 1, "k")

    assert said(arguments(spec, 1), "--spec-type") == "ngram-mod"
    assert said(arguments(spec, 1), "--ubatch-size") == "64"
    assert given["speculative.types"] == ["COMMON_SPECULATIVE_TYPE_NGRAM_MOD"]
    assert given["n_ubatch"] == 64
    assert "--spec-type" not in arguments(a_spec(), 1)
    assert "speculative.types" not in parameters(a_spec(), 1, "k")


def test_a_draft_model_is_set_for_both_kinds() -> None:
    spec = with_launch(speculative="draft-simple", draft="s:Q4_0", draft_tokens=6)
    spec = dataclasses.replace(spec, drafts={"s:Q4_0": Path("s.gguf")})
    said_ = arguments(spec, 1)
    given = parameters(spec, 1, "k")

    assert said(said_, "--spec-type") == "draft-simple"
    assert said(said_, "--spec-draft-model") == "s.gguf"
    assert said(said_, "--spec-draft-n-max") == "6"
    assert said(said_, "--spec-draft-ngl") == "0"
    assert given["speculative.types"] == ["COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE"]
    assert given["speculative.draft.mparams.path"] == "s.gguf"
    assert given["speculative.draft.n_max"] == 6
    assert given["speculative.draft.n_gpu_layers"] == 0
    assert given["speculative.draft.cpuparams.n_threads"] == spec.launch.threads


def test_without_the_file_of_its_draft_model_an_engine_does_not_speculate() -> None:
    spec = with_launch(speculative="draft-simple", draft="s:Q4_0", draft_tokens=6)

    assert not [flag for flag in arguments(spec, 1) if flag.startswith("--spec")]
    assert not [key for key in parameters(spec, 1, "k") if key.startswith("spec")]


def test_threads_for_many_tokens_are_by_default_as_many_as_for_one() -> None:
    spec = with_launch(threads_batch=4)

    assert said(arguments(spec, 1), "--threads") == "2"
    assert said(arguments(spec, 1), "--threads-batch") == "4"
    assert parameters(spec, 1, "k")["cpuparams_batch.n_threads"] == 4
    assert parameters(a_spec(), 1, "k")["cpuparams_batch.n_threads"] == 2


@pytest.mark.parametrize(
    ("kv_type", "wanted", "flag", "parameter"),
    [
        ("f16", True, "auto", "AUTO"),
        ("f16", False, "off", "DISABLED"),
        ("q8_0", True, "on", "ENABLED"),
        ("q8_0", False, "on", "ENABLED"),
    ],
)
def test_quantized_values_have_flash_attention(
    kv_type: str, wanted: bool, flag: str, parameter: str
) -> None:
    spec = with_launch(kv_type=kv_type, flash_attention=wanted)

    assert said(arguments(spec, 1), "--flash-attn") == flag
    chosen = parameters(spec, 1, "k")["flash_attn_type"]
    assert chosen == f"LLAMA_FLASH_ATTN_TYPE_{parameter}"


def test_how_long_threads_spin_is_set_where_it_was_tuned() -> None:
    few, many = with_launch(spin=200).launch, with_launch(spin=50_000).launch

    assert environment(few) == {SPIN: "200", BLOCKTIME: "0"}
    assert environment(many) == {SPIN: "50000", BLOCKTIME: "10"}
    assert environment(a_spec().launch) == {}
