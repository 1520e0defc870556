import unicodedata
from pathlib import Path

import pytest

from edgeserve.models.naming import (
    is_later_part,
    is_projector,
    named,
    projector_of,
    stem,
    variant_path,
)
from edgeserve.openai import normal
from edgeserve.runtime.files import part_path

NAMES = [
    ("SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m-instruct", "Q4_1"),
    ("qwen2.5-1.5b-instruct-q4_k_m.gguf", "qwen2.5-1.5b-instruct", "Q4_K_M"),
    ("Llama-3.2-1B-Instruct-UD-Q4_K_M.gguf", "llama-3.2-1b-instruct", "UD-Q4_K_M"),
    ("gemma-3-1b-it-BF16.gguf", "gemma-3-1b-it", "BF16"),
    ("Phi-4-IQ4_XS.GGUF", "phi-4", "IQ4_XS"),
    ("Big-Q8_0-00001-of-00003.gguf", "big", "Q8_0"),
    ("plain.gguf", "plain", "Q5_0"),
    ("My model (final).gguf", "my-model-final", "Q5_0"),
    ("a:b#c.Q8_0.gguf", "a-b-c", "Q8_0"),
    ("Модель-Ж.Q8_0.gguf", "модель-ж", "Q8_0"),
    ("модель Щ.Q8_0.gguf", "модель-щ", "Q8_0"),
    ("模型一.Q8_0.gguf", "模型一", "Q8_0"),
    ("模型二.Q8_0.gguf", "模型二", "Q8_0"),
    ("🦙.Q8_0.gguf", "🦙", "Q8_0"),
    ("🐫.Q8_0.gguf", "🐫", "Q8_0"),
    ("Küche.gguf", "küche", "Q5_0"),
    ("Ku\u0308che.gguf", "k\u00fcche", "Q5_0"),
    ("नमूना.gguf", "नमूना", "Q5_0"),
    ("a\u202eb\u2028c\u00a0d.gguf", "a-b-c-d", "Q5_0"),
]


@pytest.mark.parametrize(("file", "model", "label"), NAMES)
def test_model_and_label_are_read_from_the_file_name(
    file: str, model: str, label: str
) -> None:
    assert named(Path(file), "Q5_0") == (model, label)


@pytest.mark.parametrize("file", [name for name, _, _ in NAMES])
def test_a_name_that_clients_may_use_is_already_in_its_normal_form(file: str) -> None:
    variant = ":".join(named(Path(file), "Q5_0"))

    assert normal(variant) == variant


def test_later_parts_of_a_split_model_are_recognised() -> None:
    assert is_later_part(Path("m-00002-of-00003.gguf"))
    assert not is_later_part(Path("m-00001-of-00003.gguf"))
    assert not is_later_part(Path("m.gguf"))


def test_a_projector_is_known_by_its_name() -> None:
    assert is_projector(Path("mmproj-SmolVLM-Q8_0.gguf"))
    assert not is_projector(Path("SmolVLM-Q8_0.gguf"))


@pytest.mark.parametrize(
    ("siblings", "found"),
    [
        (["mmproj-smolvlm-Q8_0.gguf", "other.gguf"], "mmproj-smolvlm-Q8_0.gguf"),
        (["SmolVLM-mmproj-f16.gguf", "other.gguf"], "SmolVLM-mmproj-f16.gguf"),
        (["mmproj-model-f16.gguf"], "mmproj-model-f16.gguf"),
        (["mmproj-model-f16.gguf", "SmolVLM-F16.gguf"], "mmproj-model-f16.gguf"),
        (["mmproj-model-f16.gguf", "other.gguf"], None),
        (["mmproj-a-f16.gguf", "mmproj-b-f16.gguf"], None),
        (["mmproj-BF16.gguf", "mmproj-F16.gguf", "mmproj-F32.gguf"], "mmproj-F16.gguf"),
        (["mmproj-F32.gguf", "mmproj-BF16.gguf"], "mmproj-BF16.gguf"),
        (["mmproj-model-q4_0.gguf", "mmproj-model-q8_0.gguf"],
         "mmproj-model-q8_0.gguf"),
        (["mmproj-smolvlm-F32.gguf", "mmproj-smolvlm-Q8_0.gguf", "other.gguf"],
         "mmproj-smolvlm-Q8_0.gguf"),
        (["mmproj-F16.gguf", "._mmproj-F16.gguf", "._SmolVLM-Q4_K_M.gguf",
          "._other.gguf"], "mmproj-F16.gguf"),
        (["._mmproj-F16.gguf"], None),
        ([], None),
    ],
)  # fmt: skip
def test_a_model_finds_its_own_projector(
    siblings: list[str], found: str | None
) -> None:
    model = Path("SmolVLM-Q4_K_M.gguf")

    chosen = projector_of(model, [model, *map(Path, siblings)])

    assert chosen == (Path(found) if found else None)


@pytest.mark.parametrize("file", [name for name, _, _ in NAMES])
def test_no_two_of_these_are_called_the_same(file: str) -> None:
    mine = named(Path(file), "Q5_0")
    same = [name for name, model, label in NAMES if (model, label) == mine]

    assert [unicodedata.normalize("NFC", each) for each in same].count(
        unicodedata.normalize("NFC", file)
    ) == len(same)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct"),
        ("qwen2.5-1.5b-instruct-q4_k_m.gguf", "qwen2.5-1.5b-instruct"),
        ("Llama-3-8B-F16-00001-of-00003.gguf", "Llama-3-8B"),
        ("plain.gguf", "plain"),
        ("f16.gguf", "f16"),
        ("x-IQ3_XXS.gguf", "x"),
    ],
)
def test_the_type_is_taken_off_a_name(name: str, model: str) -> None:
    assert stem(Path(name)) == model


def test_a_variant_is_named_after_model_and_type() -> None:
    target = variant_path(Path("out"), Path("in/x.F16.gguf"), "Q4_K_M")

    assert target == Path("out/x.Q4_K_M.gguf")
    assert part_path(target) == Path("out/x.Q4_K_M.gguf.part")
